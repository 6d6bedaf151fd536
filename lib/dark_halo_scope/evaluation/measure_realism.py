"""Measure shortcuts and realism of a trained network: real lenses against injections, bricks, and the worst errors."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.crossmatch import nearest
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import write_text
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path, verified_paths, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.arc_light import KIND as ARC_LIGHT
from dark_halo_scope.evaluation.arc_light import LENSES
from dark_halo_scope.evaluation.brick_spread import measure_bricks
from dark_halo_scope.evaluation.cutout_scores import centre_crop, condition_reasons, pixel_reasons
from dark_halo_scope.evaluation.matching import host_photometry
from dark_halo_scope.evaluation.pairs import column, host_labels, lens_centres, measurable_rows
from dark_halo_scope.evaluation.realism import Galaxies, match, measure_realism, two_ways
from dark_halo_scope.evaluation.realism_config import RealismSettings
from dark_halo_scope.evaluation.score_errors import errors_csv, false_lenses, missed_injections, missed_lenses
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.images.cutouts import open_cutouts
from dark_halo_scope.images.packed import PackedSplit, open_packed
from dark_halo_scope.survey.names import BANDS

MODULE = "dark_halo_scope.evaluation.measure_realism"

_CONDITIONS = ("psfsize_r", "psfdepth_r")
_SCORE_COLUMNS = (
    *("task_id", "ra", "dec", "brickname", "objid", "kind", "control_kind", "theta_e_arcsec", "theta_e_over_psf"),
    *("arc_snr", "packed_row", "logit", "score"),
)

_logger = logging.getLogger(__name__)


def usable_lenses(
    images_N3HW: NDArray[np.floating], rows: pa.Table, meta_columns: Sequence[str]
) -> tuple[NDArray[np.intp], dict[str, int]]:
    """Places of the cutouts that can be probed, and why others cannot -> how many.

    Args:
        images_N3HW: of the network's size, nanomaggies per pixel.
        rows: of cutouts.json.
        meta_columns: conditions that the network takes.
    """
    ok = rows["cutout_ok"].to_pylist()
    # Their arcs may be invisible from the ground: they would make injections look too bright.
    stress = rows["stress"].to_pylist() if "stress" in rows.column_names else [False] * len(ok)
    unknown = condition_reasons(rows, meta_columns)
    pixels = pixel_reasons(np.asarray(images_N3HW, dtype=np.float32))
    reasons = [
        ("cutout not ok" if not good else None) or ("in a stress list" if is_stress else None) or condition or seen
        for good, is_stress, condition, seen in zip(ok, stress, unknown, pixels, strict=True)
    ]
    kept = np.array([place for place, reason in enumerate(reasons) if reason is None], dtype=np.intp)
    return kept, dict(sorted(Counter(reason for reason in reasons if reason is not None).items()))


def coadd_stamps(
    lenses: pa.Table, arc_light: Manifest, size: int, radius_arcsec: float
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float64]]:
    """Stamps of the lenses as `measure_arc_light` cut them out of the coadds, in the way of injections.

    Args:
        lenses: (N,) rows with ra and dec.
        arc_light: manifest with `LENS_SCHEMA`.
        size: pixels of a stamp's side.
        radius_arcsec: how far positions of one lens may lie apart.

    Returns:
        Places of the M lenses that have one, their pixels (M, 3, size, size), and their centres (M, 2) in arcsec.
    """
    stored = pq.read_table(verified_path(arc_light, LENSES))
    found, _ = nearest(
        column(lenses, "ra"), column(lenses, "dec"), column(stored, "ra"), column(stored, "dec"), radius_arcsec
    )
    places = np.flatnonzero(found >= 0)
    taken = stored.take(pa.array(found[places]))
    stamps = [centre_crop(decode_stamp(blob.as_py()), size) for blob in taken["stamp_npz"]]
    images = np.stack(stamps).astype(np.float32) if stamps else np.empty((0, len(BANDS), size, size), np.float32)
    centre = np.stack([column(taken, f"host_offset_{axis}_arcsec") for axis in "xy"], axis=1)
    return places, images, centre


def one_a_host(split: PackedSplit, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of good pairs, one a host at random, at most so many."""
    good = np.flatnonzero(measurable_rows(split.rows)[0])
    shuffled = rng.permutation(good)
    _, first = np.unique(host_labels(split.rows)[shuffled], return_index=True)
    chosen = shuffled[first]
    return np.sort(rng.choice(chosen, most, replace=False) if len(chosen) > most else chosen)


def with_cells(rows: pa.Table) -> pa.Table:
    """Rows with `healpix_128` and `split` as their positions have them, whatever a list says."""
    cells = healpix_cell(column(rows, "ra"), column(rows, "dec"))
    for name, values in (("healpix_128", pa.array(cells)), ("split", pa.array(split_of_cells(cells).astype(str)))):
        place = rows.schema.get_field_index(name)
        rows = rows.append_column(name, values) if place < 0 else rows.set_column(place, name, values)
    return rows


def read_scores(manifest: Manifest) -> pa.Table:
    """The columns of scores that bricks and errors need."""
    tables = []
    for path in verified_paths(manifest):
        names = pq.read_schema(path).names
        tables.append(pq.read_table(path, columns=[name for name in _SCORE_COLUMNS if name in names]))
    return pa.concat_tables(tables)


def check_belong_together(scores: Manifest, model_sha256: str, packed_sha256: str, where: Path) -> None:
    """Refuse scores of another network or of other images.

    Raises:
        BadInputError: they are.
    """
    expected = {"model_sha256": model_sha256, "packed_sha256": packed_sha256}
    for name, value in expected.items():
        if scores.facts.get(name) != value:
            what = "of another network" if name == "model_sha256" else "of other packed images"
            raise BadInputError(f"The scores of {where} are {what} than the ones given; score again.")


def main(argv: Sequence[str] | None = None) -> None:
    """Write realism.json and errors.csv."""
    parser = argument_parser("Probe real lenses against injections, compare bricks, and list the worst errors.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument(
        "--packed", required=True, type=Path, help="packed.json of the pairs that gates are measured on"
    )
    parser.add_argument("--scores", required=True, type=Path, help="scores of its test split by this model")
    parser.add_argument("--cutouts", required=True, type=Path, help="results/anchors/cutouts.json")
    parser.add_argument(
        "--arc-light", required=True, type=Path, help="arc_light.json, which has lenses cut from coadds"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--output", required=True, type=Path, help="realism.json")
    parser.add_argument("--errors", required=True, type=Path, help="errors.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, RealismSettings)
    started = datetime.now(UTC)

    from scipy.special import expit

    from dark_halo_scope.evaluation.features import feature_extractor
    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    scores_manifest, packed = load_manifest(arguments.scores, "scores"), load_manifest(arguments.packed, "packed")
    check_belong_together(scores_manifest, finder.card["weights"]["sha256"], packed.sha256, arguments.scores)
    name = str(scores_manifest.facts["split"])
    split, scores = open_packed(arguments.packed, name), read_scores(scores_manifest)
    rng = np.random.default_rng(settings.seed)

    cutouts_N3HW, listed = open_cutouts(arguments.cutouts)
    cutouts_N3HW, listed = centre_crop(cutouts_N3HW, finder.preprocess.size), with_cells(listed)
    kept, excluded = usable_lenses(cutouts_N3HW, listed, finder.model.settings.meta_columns)
    if len(kept) > settings.max_lenses:
        excluded["not drawn"] = len(kept) - settings.max_lenses
        kept = np.sort(rng.choice(kept, settings.max_lenses, replace=False))
    lens_rows, service = listed.take(pa.array(kept)), np.asarray(cutouts_N3HW[kept], dtype=np.float32)
    on_coadds, coadd, coadd_centre = coadd_stamps(
        lens_rows, load_manifest(arguments.arc_light, ARC_LIGHT), finder.preprocess.size, settings.same_object_arcsec
    )
    chosen = one_a_host(split, settings.max_injections, rng)
    injection_rows = split.rows.take(pa.array(chosen))
    hosts = host_labels(injection_rows)
    centre = lens_centres(injection_rows)
    centre = np.zeros((len(chosen), 2)) if centre is None else centre
    with Progress(len(service) + len(coadd) + 2 * len(chosen), "Taking features (images)") as progress:
        extract = feature_extractor(finder.model, finder.preprocess, finder.device, advance=progress.advance)

        def galaxies(
            images: NDArray[np.floating], rows: pa.Table, at: NDArray[np.float64], host: NDArray[np.intp]
        ) -> tuple[Galaxies, NDArray[np.float64]]:
            pixels = np.asarray(images, dtype=np.float32)
            features, logits = extract(pixels, rows)
            seen: Mapping[str, NDArray[np.float64]] = host_photometry(pixels, at, settings.match)
            conditions = {key: column(rows, key) for key in _CONDITIONS if key in rows.column_names}
            return Galaxies(pixels, rows, at, host, {**seen, **conditions}, features), logits

        real, logits = galaxies(service, lens_rows, np.zeros((len(service), 2)), np.arange(len(service)))
        cut, _ = galaxies(coadd, lens_rows.take(pa.array(on_coadds)), coadd_centre, on_coadds)
        injections, _ = galaxies(split.positive[chosen], injection_rows, centre, hosts)
        controls, _ = galaxies(split.control[chosen], injection_rows, centre, hosts)

    paths: dict[str, Any] = {}
    hosts_alone = settings.match.variables
    for path, lenses in (("service", real), ("coadd", cut)):
        own_split = np.array([value == name for value in lenses.rows["split"].to_pylist()], dtype=bool)
        groups = {
            "all": (lenses, hosts_alone),
            "all_conditions_matched": (lenses, (*hosts_alone, *settings.match.conditions)),
            # On the sky that injections are on: the same bricks, hence the same seeing and depth.
            f"{name}_split": (lenses.take(np.flatnonzero(own_split)), hosts_alone),
        }
        paths[path] = {}
        for group, (members, variables) in groups.items():
            _logger.info("Probing %d lenses (%s, %s)", len(members), path, group)
            found = match(members, injections, variables, settings.match.caliper)
            paths[path][group] = measure_realism(members, injections, controls, found, settings)
    classifiers = settings.classifiers
    lens_facts = lens_rows.append_column("kind", pa.array(["lens"] * lens_rows.num_rows))
    missed, missed_facts = missed_lenses(lens_facts, logits, expit(logits), settings.errors)
    false, false_facts = false_lenses(scores, settings.errors)
    faint, faint_facts = missed_injections(scores, settings.errors)
    result: dict[str, Any] = {
        "generation": finder.card.get("generation"),
        "dataset": arguments.packed.parent.name,
        "split": name,
        "model_sha256": finder.card["weights"]["sha256"],
        "packed_sha256": packed.sha256,
        "settings": settings.model_dump(mode="json"),
        "lenses": {
            "listed": listed.num_rows,
            "probed": len(real),
            "on_coadds": len(cut),
            "excluded": excluded,
            "by_discovery": _tally(lens_rows, "discovery"),
        },
        "paths": paths,
        "service_vs_coadd": two_ways(real.take(on_coadds), cut, classifiers, rng),
        "bricks": measure_bricks(scores, settings.bricks, classifiers.bootstraps, classifiers.confidence, rng),
        "errors": {"negatives": false_facts, "injections": faint_facts, "lenses": missed_facts},
    }
    write_text(arguments.errors, errors_csv([*false, *faint, *missed]))
    inputs = [arguments.model, arguments.packed, arguments.scores, arguments.cutouts, arguments.arc_light]
    write_result(arguments.output, result, MODULE, settings, inputs, started)
    _log(paths)


def _tally(rows: pa.Table, name: str) -> dict[str, int]:
    if name not in rows.column_names:
        return {}
    found = pc.value_counts(rows[name]).to_pylist()
    return dict(sorted((str(item["values"]), item["counts"]) for item in found))


def _log(paths: Mapping[str, Mapping[str, Any]]) -> None:
    for path, groups in paths.items():
        for group, measured in groups.items():
            for comparison, entry in measured["probe"].items():
                value = entry["status"] if entry["value"] is None else f"{entry['value']:.3f} {entry['interval']}"
                _logger.info("%s, %s: %s %s (n = %d)", path, group, comparison, value, entry["n"])


if __name__ == "__main__":
    run(main)
