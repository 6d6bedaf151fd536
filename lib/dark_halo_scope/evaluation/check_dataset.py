"""Measure a dataset of stamps and say whether it may be trained on: stamps.json -> quality.json.

The verdict is `accepted` or `refused` with the reasons, and this command ends well either way: a job that fails loses
its outputs, and the numbers that explain a refusal with them. `pack_images` refuses what is refused here.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_paths, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.pairs import column, host_labels, lens_centres, true_theta_e
from dark_halo_scope.evaluation.quality import (
    counts,
    distributions,
    failures,
    refusals,
    split_integrity,
    usable_rows,
)
from dark_halo_scope.evaluation.shortcuts import PairSample, core_brightness_ratio, measure_shortcuts
from dark_halo_scope.images.codec import NpzError, decode_stamp
from dark_halo_scope.injection.schema import require_columns
from dark_halo_scope.survey.names import PIXEL_SCALE

MODULE = "dark_halo_scope.evaluation.check_dataset"

_BLOBS = {"positive": "stamp_npz", "control": "ctrl_stamp_npz", "hard_negative": "hardneg_stamp_npz"}
_REQUIRED = (
    *("task_id", "brickname", "ra", "dec", "split", "healpix_128", "cutout_ok", "cutout_reason", "is_control"),
    *("theta_e_arcsec", "psfsize_r", "source_id", "sampling_weight"),
)
# Observing conditions that a network may be given.
_METADATA = ("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_g", "psfdepth_r", "psfdepth_z", "ebv")
_BATCH_ROWS = 128

_logger = logging.getLogger(__name__)


def read_rows(paths: Sequence[Path]) -> pa.Table:
    """Every row of the stamp files without its stamps, and its place: file `_file`, row `_row`.

    Raises:
        BadInputError: no file, or a column is missing.
    """
    tables = []
    for number, path in enumerate(paths):
        names = pq.read_schema(path).names
        require_columns(names, (*_REQUIRED, *_BLOBS.values()), str(path))
        table = pq.read_table(path, columns=[name for name in names if not name.endswith("_npz")])
        table = table.append_column("_file", pa.array(np.full(table.num_rows, number), pa.int64()))
        tables.append(table.append_column("_row", pa.array(np.arange(table.num_rows), pa.int64())))
    if not tables:
        raise BadInputError("The stamps' manifest names no Parquet file; inject again.")
    return pa.concat_tables(tables, promote_options="permissive")


def inspect_pixels(
    paths: Sequence[Path], rows: pa.Table, chosen: NDArray[np.intp], kept: NDArray[np.intp]
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]], NDArray[np.intp]]:
    """Decode the stamps of some usable rows, batch by batch.

    Args:
        paths: stamp files.
        rows: of `read_rows`.
        chosen: rows to decode.
        kept: those of them whose pixels are wanted, all of them pairs.

    Returns:
        The report; kind -> (K, 3, H, W) pixels of the `kept` rows that are whole; and which rows these are.
    """
    bad = {kind: {"missing": 0, "not readable": 0, "not finite": 0} for kind in _BLOBS}
    pictures: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in _BLOBS}
    whole: list[int] = []
    is_control, wanted = column(rows, "is_control") == 1, set(kept.tolist())
    files, places = rows["_file"].to_numpy(), rows["_row"].to_numpy()
    with Progress(len(chosen), "Decoding (rows)") as progress:
        for number in np.unique(files[chosen]).tolist():
            by_place = {int(places[index]): int(index) for index in chosen[files[chosen] == number]}
            start = 0
            with pq.ParquetFile(paths[number]) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(_BLOBS.values())):
                    for offset in range(batch.num_rows):
                        index = by_place.get(start + offset)
                        if index is None:
                            continue
                        kinds = ("positive",) if is_control[index] else tuple(_BLOBS)
                        images = {k: _decoded(batch[_BLOBS[k]][offset].as_py(), bad[k]) for k in kinds}
                        progress.advance()
                        if index in wanted and all(image is not None for image in images.values()):
                            whole.append(index)
                            for kind, image in images.items():
                                pictures[kind].append(image)  # type: ignore[arg-type]
                    start += batch.num_rows
    report = {"rows_decoded": len(chosen), "bad": bad}
    stacked = {kind: np.stack(found) for kind, found in pictures.items() if found}
    return report, stacked, np.array(whole, dtype=np.intp)


def check(stamps: Manifest, paths: Sequence[Path], settings: DatasetCheckSettings) -> dict[str, Any]:
    """Everything that quality.json holds."""
    rng = np.random.default_rng(settings.seed)
    rows = read_rows(paths)
    usable = usable_rows(rows)
    is_control = column(rows, "is_control") == 1
    candidates = np.flatnonzero(usable)
    # Drawn by rank of task_id: which rows are looked at does not depend on how they lie in files.
    ranked = candidates[np.argsort(rows["task_id"].to_numpy(zero_copy_only=False)[candidates].astype(str))]
    pairs = ranked[~is_control[ranked]]
    kept = np.sort(rng.choice(pairs, min(len(pairs), settings.shortcuts.max_pairs), replace=False))
    if len(ranked) > settings.max_decoded:
        ranked = np.union1d(rng.choice(ranked, settings.max_decoded, replace=False), kept)
    pixels, images, whole = inspect_pixels(paths, rows, np.sort(ranked), kept)
    report: dict[str, Any] = {
        "stamps_sha256": stamps.sha256,
        "rows": rows.num_rows,
        "counts": counts(rows, settings),
        "failed_fraction": float(np.mean(~usable)) if len(usable) else 0.0,
        "failures": failures(rows),
        "pixels": pixels,
        "distributions": distributions(rows),
        "split_integrity": split_integrity(rows, settings),
    }
    reasons = refusals(report, settings)
    return report | {
        "shortcuts": _shortcuts(rows, images, whole, settings),
        "verdict": "refused" if reasons else "accepted",
        "reasons": reasons,
    }


def _decoded(blob: bytes | None, problems: dict[str, int]) -> NDArray[np.float32] | None:
    if blob is None:
        problems["missing"] += 1
        return None
    try:
        image = decode_stamp(blob)
    except NpzError:
        problems["not readable"] += 1
        return None
    if not np.isfinite(image).all():
        problems["not finite"] += 1
        return None
    return image


def _shortcuts(
    rows: pa.Table, images: Mapping[str, NDArray[np.float32]], whole: NDArray[np.intp], settings: DatasetCheckSettings
) -> dict[str, Any]:
    if not len(whole):
        return {"pairs": 0}
    pairs = rows.take(pa.array(whole))
    where = geometry(
        true_theta_e(pairs),
        column(pairs, "psfsize_r"),
        images["positive"].shape[-2:],
        centre_N2=lens_centres(pairs),
        pixel_scale=PIXEL_SCALE,
    )
    sample = PairSample(
        images["positive"],
        images["control"],
        images["hard_negative"],
        where,
        host_labels(pairs),
        column(pairs, "healpix_128").astype(np.int64),
        _unpaired_metadata(rows, pairs, settings),
    )
    return {
        "pairs": len(whole),
        "core_brightness_ratio": core_brightness_ratio(sample),
        "auc": measure_shortcuts(sample, settings.shortcuts, settings.seed),
    }


def _unpaired_metadata(
    rows: pa.Table, pairs: pa.Table, settings: DatasetCheckSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Metadata of the pairs and of as many unpaired controls; None in a paired dataset."""
    names = [name for name in _METADATA if name in rows.column_names]
    controls = np.flatnonzero(usable_rows(rows) & (column(rows, "is_control") == 1))
    if not names or not len(controls):
        return None
    drawn = np.random.default_rng([settings.seed, 1]).choice(controls, len(pairs), replace=len(controls) < len(pairs))
    other = rows.take(pa.array(drawn))
    first, second = (np.stack([column(table, name) for name in names], axis=1) for table in (pairs, other))
    return first, second


def main(argv: Sequence[str] | None = None) -> None:
    """Write quality.json."""
    parser = argument_parser("Measure a dataset of stamps and say whether it may be trained on.")
    parser.add_argument("--stamps", required=True, type=Path, help="stamps.json")
    parser.add_argument("--output", required=True, type=Path, help="quality.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, DatasetCheckSettings)
    stamps = load_manifest(arguments.stamps, "stamps")
    report = check(stamps, verified_paths(stamps), settings)
    write_result(arguments.output, report, MODULE, settings, [arguments.stamps])
    if report["reasons"]:
        _logger.warning("This dataset is refused: %s.", "; ".join(report["reasons"]))
    else:
        _logger.info("This dataset is accepted: %d rows, %d failed.", report["rows"], sum(report["failures"].values()))


if __name__ == "__main__":
    run(main)
