"""Measure a dataset of stamps and say whether it may be trained on: stamps.json (negatives.json) -> quality.json.

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
from dark_halo_scope.evaluation.hybrids import Geometry, geometry
from dark_halo_scope.evaluation.pairs import column, host_labels, lens_centres, true_theta_e
from dark_halo_scope.evaluation.quality import (
    CONFUSERS,
    arc_colours,
    arc_fluxes,
    balance,
    counts,
    distributions,
    duplicates,
    failures,
    negative_kinds,
    null_shares,
    refusals,
    split_integrity,
    usable_rows,
    warnings,
)
from dark_halo_scope.evaluation.shortcuts import (
    PairSample,
    UnpairedSample,
    core_brightness_ratio,
    measure_shortcuts,
    measure_unpaired,
)
from dark_halo_scope.images.codec import NpzError, decode_stamp
from dark_halo_scope.injection.schema import UNPAIRED, require_columns
from dark_halo_scope.survey.names import PIXEL_SCALE

MODULE = "dark_halo_scope.evaluation.check_dataset"

_BLOBS = {"positive": "stamp_npz", "control": "ctrl_stamp_npz", "hard_negative": "hardneg_stamp_npz"}
_REQUIRED = (
    *("task_id", "brickname", "ra", "dec", "split", "healpix_128", "cutout_ok", "cutout_reason", "is_control"),
    *("theta_e_arcsec", "psfsize_r", "source_id", "sampling_weight", "config_id", "replicate", "control_kind"),
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
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]], dict[str, NDArray[np.intp]]]:
    """Decode the stamps of some usable rows, batch by batch.

    Args:
        paths: stamp files.
        rows: of `read_rows`.
        chosen: rows to decode.
        kept: those of them whose pixels are wanted.

    Returns:
        The report; of the `kept` rows that are whole, the pixels by kind (K, 3, H, W), with those of negatives (which
        are no pairs) as kind `negative`; and which rows these are, of pairs under `pair`, of the others under
        `negative`.
    """
    bad = {kind: {"missing": 0, "not readable": 0, "not finite": 0} for kind in _BLOBS}
    pictures: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in (*_BLOBS, "negative")}
    whole: dict[str, list[int]] = {"pair": [], "negative": []}
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
                            whole["negative" if is_control[index] else "pair"].append(index)
                            for kind, image in images.items():
                                pictures["negative" if is_control[index] else kind].append(image)  # type: ignore[arg-type]
                    start += batch.num_rows
    report = {"rows_decoded": len(chosen), "bad": bad}
    stacked = {kind: np.stack(found) for kind, found in pictures.items() if found}
    return report, stacked, {name: np.array(found, dtype=np.intp) for name, found in whole.items()}


def check(
    stamps: Manifest, paths: Sequence[Path], settings: DatasetCheckSettings, negatives: Sequence[Manifest] = ()
) -> dict[str, Any]:
    """Everything that quality.json holds.

    Args:
        stamps: their manifest.
        paths: files of stamps and negatives.
        settings: of the check.
        negatives: manifests of confusers.
    """
    rng = np.random.default_rng(settings.seed)
    rows = read_rows(paths)
    usable = usable_rows(rows)
    is_control = column(rows, "is_control") == 1
    candidates = np.flatnonzero(usable)
    # Drawn by rank of task_id: which rows are looked at does not depend on how they lie in files.
    ranked = candidates[np.argsort(rows["task_id"].to_numpy(zero_copy_only=False)[candidates].astype(str))]
    pairs, others = ranked[~is_control[ranked]], ranked[is_control[ranked]]
    kept = rng.choice(pairs, min(len(pairs), settings.shortcuts.max_pairs), replace=False)
    kind = negative_kinds(rows)
    # A generator of its own: which pairs and pixels are looked at does not depend on the negatives' number.
    draw = np.random.default_rng([settings.seed, 1])
    for name in (UNPAIRED, CONFUSERS):
        of_kind = others[kind[others] == name]
        drawn = draw.choice(of_kind, min(len(of_kind), settings.shortcuts.max_pairs), replace=False)
        kept = np.union1d(kept, drawn)
    if len(ranked) > settings.max_decoded:
        ranked = np.union1d(rng.choice(ranked, settings.max_decoded, replace=False), kept)
    pixels, images, whole = inspect_pixels(paths, rows, np.sort(ranked), kept)
    report: dict[str, Any] = {
        "stamps_sha256": stamps.sha256,
        "negatives_sha256": [manifest.sha256 for manifest in negatives],
        "rows": rows.num_rows,
        "counts": counts(rows, settings),
        "failed_fraction": float(np.mean(~usable)) if len(usable) else 0.0,
        "failures": failures(rows),
        "pixels": pixels,
        "distributions": distributions(rows),
        "split_integrity": split_integrity(rows, settings),
        "duplicates": duplicates(rows),
        "nulls": null_shares(rows),
        "balance": balance(rows),
        "shortcuts": _shortcuts(rows, images, whole, settings),
    }
    reasons = refusals(report, settings)
    return report | {
        "warnings": warnings(report, settings),
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
    rows: pa.Table,
    images: Mapping[str, NDArray[np.float32]],
    whole: Mapping[str, NDArray[np.intp]],
    settings: DatasetCheckSettings,
) -> dict[str, Any]:
    if not len(whole["pair"]):
        return {"pairs": 0}
    pairs = rows.take(pa.array(whole["pair"]))
    where = _geometry(pairs, pairs, images["positive"].shape[-2:])
    sample = PairSample(
        images["positive"], images["control"], images["hard_negative"], where, host_labels(pairs), _cells(pairs)
    )
    aucs = measure_shortcuts(sample, settings.shortcuts, settings.seed)
    positive = UnpairedSample(sample.positive, where, _metadata(pairs), sample.host, sample.cell)
    kind = negative_kinds(rows)[whole["negative"]]
    for name in (UNPAIRED, CONFUSERS):
        here = np.flatnonzero(kind == name)
        if len(here):
            others = rows.take(pa.array(whole["negative"][here]))
            # Galaxies without a lens borrow the Einstein radii of positives, so that both have the same annuli.
            lent = pairs.take(pa.array(np.arange(len(here)) % pairs.num_rows))
            pixels = images["negative"][here]
            around = _geometry(lent, others, pixels.shape[-2:])
            negative = UnpairedSample(pixels, around, _metadata(others), host_labels(others), _cells(others))
            aucs[name] = measure_unpaired(positive, negative, settings.shortcuts, settings.seed)
    arcs = arc_fluxes(sample.positive - sample.control, where)
    return {
        "pairs": len(pairs),
        "core_brightness_ratio": core_brightness_ratio(sample),
        "arc_colours": arc_colours(arcs, settings.min_colour_scatter),
        "auc": aucs,
    }


def _geometry(lenses: pa.Table, galaxies: pa.Table, shape: tuple[int, int]) -> Geometry:
    """Core and annulus of the lenses' Einstein radii about the galaxies."""
    return geometry(
        true_theta_e(lenses),
        column(lenses, "psfsize_r"),
        shape,
        centre_N2=lens_centres(galaxies),
        pixel_scale=PIXEL_SCALE,
    )


def _cells(rows: pa.Table) -> NDArray[np.int64]:
    return column(rows, "healpix_128").astype(np.int64)


def _metadata(rows: pa.Table) -> NDArray[np.float64]:
    """(N, M) observing conditions; what a dataset does not have is NaN in both classes."""
    nothing = np.full(rows.num_rows, np.nan)
    return np.stack([column(rows, name) if name in rows.column_names else nothing for name in _METADATA], axis=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Write quality.json."""
    parser = argument_parser("Measure a dataset of stamps and say whether it may be trained on.")
    parser.add_argument("--stamps", required=True, type=Path, help="stamps.json")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="negatives.json of the same dataset")
    parser.add_argument("--output", required=True, type=Path, help="quality.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, DatasetCheckSettings)
    stamps = load_manifest(arguments.stamps, "stamps")
    negatives = [load_manifest(path, "negatives") for path in arguments.negatives]
    paths = [path for manifest in (stamps, *negatives) for path in verified_paths(manifest)]
    report = check(stamps, paths, settings, negatives)
    write_result(arguments.output, report, MODULE, settings, [arguments.stamps, *arguments.negatives])
    for sentence in report["warnings"]:
        _logger.warning("%s.", sentence)
    if report["reasons"]:
        _logger.warning("This dataset is refused: %s.", "; ".join(report["reasons"]))
    else:
        _logger.info("This dataset is accepted: %d rows, %d failed.", report["rows"], sum(report["failures"].values()))


if __name__ == "__main__":
    run(main)
