"""Measure a dataset of stamps and say whether it may be trained on: stamps.json (negatives.json) -> quality.json.

The verdict is `accepted` or `refused` with the reasons, and this command ends well either way: a job that fails loses
its outputs, and the numbers that explain a refusal with them. `pack_images` refuses what is refused here.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import SPLIT_SEED
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_paths, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.evaluation.dataset_rows import CONFUSERS, DatasetRows, read_rows
from dark_halo_scope.evaluation.hybrids import Geometry, geometry
from dark_halo_scope.evaluation.pairs import column, host_labels, lens_centres, true_theta_e
from dark_halo_scope.evaluation.quality import (
    arc_colours,
    arc_fluxes,
    balance,
    counts,
    distributions,
    duplicates,
    failures,
    refusals,
    split_integrity,
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
from dark_halo_scope.injection.schema import UNPAIRED
from dark_halo_scope.survey.names import PIXEL_SCALE

MODULE = "dark_halo_scope.evaluation.check_dataset"

_BLOBS = {"positive": "stamp_npz", "control": "ctrl_stamp_npz", "hard_negative": "hardneg_stamp_npz"}
NEGATIVE = "negative"
# Observing conditions that a network may be given.
_METADATA = ("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_g", "psfdepth_r", "psfdepth_z", "ebv")
# What the classifiers need to know of a row.
_SAMPLED = (
    *("brickname", "objid", "ra", "dec", "healpix_128", "control_kind", "theta_e_arcsec", "theta_e_arcsec_true"),
    *("host_offset_x_arcsec", "host_offset_y_arcsec", *_METADATA),
)
_BATCH_ROWS = 128

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Whole rows that were drawn, by their task_id's hash, and their pixels.

    rows: columns of `_SAMPLED`, (N,).
    images: kind -> (N, 3, H, W) nanomaggies per pixel.
    """

    rows: pa.Table
    images: Mapping[str, NDArray[np.float32]]


def inspect_pixels(
    rows: DatasetRows, chosen: NDArray[np.intp], kept: NDArray[np.intp]
) -> tuple[dict[str, Any], dict[str, Sample]]:
    """Decode the stamps of some usable rows, batch by batch.

    Args:
        rows: of the dataset.
        chosen: rows to decode.
        kept: those of them whose pixels are wanted.

    Returns:
        The report; and of the `kept` rows that are whole, those with partners under `pair`, the others under
        `negative`, where there are any.
    """
    bad = {kind: {"missing": 0, "not readable": 0, "not finite": 0} for kind in (*_BLOBS, NEGATIVE)}
    blobs = {"pair": _BLOBS, NEGATIVE: {NEGATIVE: _BLOBS["positive"]}}
    pictures: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in bad}
    tables: dict[str, list[pa.Table]] = {group: [] for group in blobs}
    tasks: dict[str, list[int]] = {group: [] for group in blobs}
    wanted = set(kept.tolist())
    with Progress(len(chosen), "Decoding (rows)") as progress:
        for number in np.unique(rows.file[chosen]).tolist():
            by_place = {int(rows.row[index]): int(index) for index in chosen[rows.file[chosen] == number]}
            start = 0
            with pq.ParquetFile(rows.paths[number]) as file:
                names = [name for name in _SAMPLED if name in file.schema_arrow.names]
                for batch in file.iter_batches(_BATCH_ROWS, columns=[*names, *_BLOBS.values()]):
                    taken: dict[str, list[int]] = {group: [] for group in blobs}
                    for offset in range(batch.num_rows):
                        index = by_place.get(start + offset)
                        if index is None:
                            continue
                        group = NEGATIVE if rows.control[index] else "pair"
                        images = {
                            kind: _decoded(batch[blob][offset].as_py(), rows.size, bad[kind])
                            for kind, blob in blobs[group].items()
                        }
                        progress.advance()
                        if index in wanted and all(image is not None for image in images.values()):
                            taken[group].append(offset)
                            tasks[group].append(int(rows.task[index]))
                            for kind, image in images.items():
                                pictures[kind].append(image)  # type: ignore[arg-type]
                    for group, offsets in taken.items():
                        if offsets:
                            tables[group].append(pa.Table.from_batches([batch.select(names).take(pa.array(offsets))]))
                    start += batch.num_rows
    samples = {}
    for group, found in tasks.items():
        if found:
            # Whatever file a row came from: numbers must not depend on it.
            order = np.argsort(np.array(found, dtype=np.uint64))
            table = pa.concat_tables(tables[group], promote_options="permissive").take(pa.array(order))
            # Kind by kind, so that what is stacked is held once.
            samples[group] = Sample(table, {kind: np.stack(pictures.pop(kind))[order] for kind in blobs[group]})
    return {"rows_decoded": len(chosen), "bad": bad}, samples


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
    # Drawn by rank of task_id's hash: which rows are looked at does not depend on how they lie in files.
    candidates = np.flatnonzero(rows.usable)
    ranked = candidates[np.argsort(rows.task[candidates])]
    pairs = ranked[~rows.control[ranked]]
    kept = rng.choice(pairs, min(len(pairs), settings.shortcuts.max_pairs), replace=False)
    # A generator of its own: which pairs and pixels are looked at does not depend on the negatives' number.
    draw = np.random.default_rng([settings.seed, 1])
    for group in (UNPAIRED, CONFUSERS):
        of_group = ranked[rows.negatives(group)[ranked]]
        drawn = draw.choice(of_group, min(len(of_group), settings.shortcuts.max_pairs), replace=False)
        kept = np.union1d(kept, drawn)
    if len(ranked) > settings.max_decoded:
        ranked = np.union1d(rng.choice(ranked, settings.max_decoded, replace=False), kept)
    pixels, samples = inspect_pixels(rows, np.sort(ranked), kept)
    report: dict[str, Any] = {
        "stamps_sha256": stamps.sha256,
        "negatives_sha256": [manifest.sha256 for manifest in negatives],
        "rows": len(rows),
        "counts": counts(rows, settings),
        "failed_fraction": float(np.mean(~rows.usable)) if len(rows) else 0.0,
        "failures": failures(rows),
        "pixels": pixels,
        "distributions": distributions(rows),
        "split_integrity": split_integrity(rows, settings, stamps.facts.get("split_seed", SPLIT_SEED)),
        "duplicates": duplicates(rows),
        "nulls": dict(rows.nulls),
        "balance": balance(rows),
        "shortcuts": _shortcuts(samples, settings),
    }
    reasons = refusals(report, settings)
    return report | {
        "warnings": warnings(report),
        "verdict": "refused" if reasons else "accepted",
        "reasons": reasons,
    }


def _decoded(blob: bytes | None, size: int, problems: dict[str, int]) -> NDArray[np.float32] | None:
    if blob is None:
        problems["missing"] += 1
        return None
    try:
        image = decode_stamp(blob, size=size)
    except NpzError:
        problems["not readable"] += 1
        return None
    if not np.isfinite(image).all():
        problems["not finite"] += 1
        return None
    return image


def _shortcuts(samples: Mapping[str, Sample], settings: DatasetCheckSettings) -> dict[str, Any]:
    if "pair" not in samples:
        return {"pairs": 0}
    pairs, images = samples["pair"].rows, samples["pair"].images
    where = _geometry(pairs, pairs, images["positive"].shape[-2:])
    sample = PairSample(
        images["positive"], images["control"], images["hard_negative"], where, host_labels(pairs), _cells(pairs)
    )
    aucs = measure_shortcuts(sample, settings.shortcuts, settings.seed)
    positive = UnpairedSample(sample.positive, where, _metadata(pairs), sample.host, sample.cell)
    if NEGATIVE in samples:
        kinds = samples[NEGATIVE].rows["control_kind"]
        unpaired = np.array([kind in (None, "", UNPAIRED) for kind in kinds.to_pylist()])
        for name, chosen in ((UNPAIRED, unpaired), (CONFUSERS, ~unpaired)):
            here = np.flatnonzero(chosen)
            if len(here):
                others = samples[NEGATIVE].rows.take(pa.array(here))
                # Galaxies without a lens borrow the Einstein radii of positives, so that both have the same annuli.
                lent = pairs.take(pa.array(np.arange(len(here)) % pairs.num_rows))
                pixels = samples[NEGATIVE].images[NEGATIVE][here]
                around = _geometry(lent, others, pixels.shape[-2:])
                negative = UnpairedSample(pixels, around, _metadata(others), host_labels(others), _cells(others))
                aucs[name] = measure_unpaired(positive, negative, settings.shortcuts, settings.seed)
    arcs = arc_fluxes(sample.positive - sample.control)
    return {
        "pairs": pairs.num_rows,
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
