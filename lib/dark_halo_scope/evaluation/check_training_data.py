"""Measure the gates of real images before training: stamps.json -> quality.json.

The verdict is `accepted` or `refused` with the reasons, and this command ends well either way: a job that fails loses
its outputs, and the numbers that explain a refusal with them. `pack_images` packs nothing that is refused here, so that
training does not start.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import SPLIT_SEED
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_paths, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.pairs import column
from dark_halo_scope.evaluation.shortcuts import UnpairedSample
from dark_halo_scope.evaluation.stamp_sample import place_columns, read_images
from dark_halo_scope.evaluation.training_gates import (
    CLASSES,
    METADATA,
    Gate,
    Rows,
    chunks,
    cutouts_gate,
    overlap_gate,
    path_gate,
    pixels_gate,
    refusals,
    reported_gates,
    sampled,
    splits_gate,
    unpaired_sample,
    weights_gate,
)
from dark_halo_scope.evaluation.training_gates_config import TrainingGateSettings
from dark_halo_scope.images.codec import common_size
from dark_halo_scope.injection.schema import require_columns

MODULE = "dark_halo_scope.evaluation.check_training_data"

_COLUMNS = (
    *("task_id", "galaxy_id", "tier", "split", "pixel_path", "label", "healpix_128", "ra", "dec", "sample_weight"),
    *("cutout_ok", "stamp_size", *METADATA),
)
_BLOB = "stamp_npz"
_AT_ONCE = 256

_logger = logging.getLogger(__name__)


def read_table(paths: Sequence[Path]) -> pa.Table:
    """Every row's columns and where it lies.

    Raises:
        BadInputError: no file, no row, or a column is missing.
    """
    tables = []
    for number, path in enumerate(paths):
        require_columns(pq.read_schema(path).names, (*_COLUMNS, _BLOB), str(path))
        table = pq.read_table(path, columns=list(_COLUMNS))
        tables.append(place_columns(table, number))
    if not sum(table.num_rows for table in tables):
        raise BadInputError("The stamps' manifest names no row; list and cut out real images again.")
    return pa.concat_tables(tables).combine_chunks()


def decode_gate(paths: Sequence[Path], table: pa.Table, chosen: NDArray[np.intp], size: int) -> Gate:
    """Decode some rows' cutouts, a few at a time, in the order in which files have them."""
    unreadable = not_finite = 0
    with Progress(len(chosen), "Decoding (rows)") as progress:
        for part in chunks(np.sort(chosen), _AT_ONCE):
            images = read_images(paths, table.take(pa.array(part)), _BLOB, size)
            finite = np.isfinite(images)
            # What cannot be decoded comes back with no finite pixel.
            lost = ~finite.any(axis=(1, 2, 3))
            unreadable += int(lost.sum())
            not_finite += int((~finite.all(axis=(1, 2, 3)) & ~lost).sum())
            progress.advance(len(part))
    return pixels_gate(len(chosen), unreadable, not_finite)


def read_sample(paths: Sequence[Path], table: pa.Table, chosen: NDArray[np.intp], size: int) -> UnpairedSample:
    """Images and observing conditions of some rows; those without pixels are left out."""
    rows = table.take(pa.array(chosen))
    images = read_images(paths, rows, _BLOB, size)
    whole = np.isfinite(images).all(axis=(1, 2, 3))
    rows = rows.filter(pa.array(whole))
    metadata = np.stack([column(rows, name) for name in METADATA], axis=1)
    return unpaired_sample(images[whole], metadata, column(rows, "healpix_128").astype(np.int64), chosen[whole])


def check(stamps: Manifest, paths: Sequence[Path], settings: TrainingGateSettings) -> dict[str, Any]:
    """Everything that quality.json holds."""
    table = read_table(paths)
    rows = Rows({name: table[name].to_numpy() for name in _COLUMNS})
    usable = table.filter(pa.array(rows.usable))
    size = common_size(set(usable["stamp_size"].to_pylist()))
    # By a hash, because ids begin with a brick's name: the lowest of them lie together on the sky.
    ranks = pd.util.hash_array(np.asarray(table["task_id"].to_pylist(), dtype=object))
    of_class = {name: sampled(rows, ranks, name, settings.max_decoded) for name in CLASSES}
    critical = {
        "cutouts": cutouts_gate(rows, settings),
        "path": path_gate(rows),
        "pixels": decode_gate(paths, table, np.concatenate(list(of_class.values())), size),
        "splits": splits_gate(rows, settings),
        "overlap": overlap_gate(rows, settings, int(stamps.facts.get("split_seed", SPLIT_SEED))),
        "weights": weights_gate(rows, settings),
    }
    few = {name: chosen[: settings.shortcuts.max_pairs] for name, chosen in of_class.items()}
    positives, negatives = (read_sample(paths, table, few[name], size) for name in ("positives", "negatives"))
    reported = reported_gates(positives, negatives, settings)
    reasons, notes = refusals(critical, reported, settings)
    return {
        "stamps_sha256": stamps.sha256,
        "negatives_sha256": [],
        "rows": len(rows),
        "usable": int(rows.usable.sum()),
        "failures": stamps.facts.get("cutout_failed", {}),
        "critical": critical,
        "reported": reported,
        "warnings": notes,
        "verdict": "refused" if reasons else "accepted",
        "reasons": reasons,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write quality.json."""
    parser = argument_parser("Measure the gates of real images before a finder is trained on them.")
    parser.add_argument("--stamps", required=True, type=Path, help="stamps.json of a dataset of real images")
    parser.add_argument("--output", required=True, type=Path, help="quality.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, TrainingGateSettings)
    stamps = load_manifest(arguments.stamps, "stamps")
    report = check(stamps, verified_paths(stamps), settings)
    write_result(arguments.output, report, MODULE, settings, [arguments.stamps])
    for sentence in report["warnings"]:
        _logger.warning("%s.", sentence)
    if report["reasons"]:
        _logger.warning("This dataset is refused: %s.", "; ".join(report["reasons"]))
    else:
        _logger.info("This dataset is accepted: %d of %d rows are usable.", report["usable"], report["rows"])


if __name__ == "__main__":
    run(main)
