"""Recall of a finder of real images on lenses that it has never seen: known_lenses.json, and every score in a CSV.

    best.json, validation.json, known lenses, manifest.json and coadds.json of its dataset -> known_lenses.json

A finder learns from lenses of one kind of discovery, by default those that machine learning found in these very images,
so that recall on its test split says how alike two finders are. Here are all that are known, however they were found:
matched with galaxies as its own positives were, cut out by the path of its own images, counted at the thresholds of its
validation. Those within reach of a lens that it was trained or tuned on are left out and counted, so that the rest
chose nothing, in whatever split they lie. Galaxies that it learned from as negatives are none of them: the pool of
negatives keeps away from every known lens.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import write_text
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path, verified_paths, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.anchors import CIRCULAR
from dark_halo_scope.evaluation.cutout_scores import condition_reasons, score_cutouts
from dark_halo_scope.evaluation.evaluate_anchors import csv_text, one_model
from dark_halo_scope.evaluation.finder_images import FinderImages, read_images
from dark_halo_scope.evaluation.finder_rates import auc_by_group, recall_by_group
from dark_halo_scope.evaluation.freeze_model import read_validation
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.score_inputs import load_scores
from dark_halo_scope.injection.cutout_quality import measure_missing, why_unusable
from dark_halo_scope.injection.inject import CutoutError
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.real_rows import POSITIVE, positive_rows
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.real_stamps import coadd_pixels
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.cache_coadds import FILES, load_brick

MODULE = "dark_halo_scope.evaluation.measure_known_lenses"

#: Splits that a finder has learned from: weights from train; thresholds, probabilities and the epoch from val.
LEARNED = ("train", "val")
SEEN = "near a lens that it was trained or tuned on"
NOT_CACHED = "its brick is not among the dataset's coadds"

#: Of lenses: what they are grouped by.
GROUPED = ("tier", "discovery")
#: What known_lenses.csv holds of each lens that was scored.
TABLE_COLUMNS = (
    *("name", "galaxy_id", "ra", "dec", "tier", "tier_gen5_prime", "discovery", "refs", "theta_e_arcsec", "split"),
    *("logit", "score"),
)

NOTES = (
    f"Lenses of discovery `{CIRCULAR}` were found by machine learning in these very images: recall on them is circular "
    "and says how alike two finders are; `not_circular` leaves them out. `other` is where references do not say how.",
    "Recall is of lenses that somebody found, not of lenses that there are. Those known from spectra or from space may "
    "show nothing in these images.",
    "Lenses are those whose galaxies pass the cuts of the finder's own positives. None, in whatever split, is near one "
    "that it was trained or tuned on; thresholds are those of validation.json. Lenses on bricks that hold no galaxy of "
    "its dataset are not scored, but counted.",
    "AUC is against the negatives of the test split, of which there are more confusers than on the sky.",
)

Images = NDArray[np.float32]
Batch = tuple[list[int], Images, list[str | None]]

_logger = logging.getLogger(__name__)


def learned_positions(galaxies: Manifest) -> LensPositions:
    """Where the lenses are that a dataset of real images trains or tunes on."""
    columns = ["ra", "dec", "label", "split"]
    rows = pa.concat_tables(pq.read_table(path, columns=columns) for path in verified_paths(galaxies))
    learned = pc.and_(pc.equal(rows["label"], POSITIVE), pc.is_in(rows["split"], pa.array(LEARNED)))
    rows = rows.filter(learned)
    return LensPositions(rows["ra"].to_numpy(), rows["dec"].to_numpy())


def cut_lenses(
    lenses: pa.Table, coadds: Manifest, size: int, stamps: StampSettings, quality: CutoutQualitySettings
) -> Iterator[tuple[int, Images | str]]:
    """Place of each lens in the table, brick after brick, and its (3, size, size) cutout or why there is none.

    Cutouts are those that `cut_real_images` makes of these galaxies, rounded to float16 as packed ones are.
    """
    cached = set(pq.read_table(verified_path(coadds, FILES), columns=["brickname"])["brickname"].to_pylist())
    missing = {item["brickname"] for item in coadds.facts["missing"]}
    places: dict[str, list[int]] = defaultdict(list)
    for place, brick in enumerate(lenses["brickname"].to_pylist()):
        places[brick].append(place)
    for brick, here in sorted(places.items()):
        if brick in missing or brick not in cached:
            reason = "coadds missing" if brick in missing else NOT_CACHED
            yield from ((place, reason) for place in here)
            continue
        rows = lenses.take(pa.array(here))
        with load_brick(coadds, brick) as opened:
            x, y = opened.sky_to_pixel(rows["ra"].to_numpy(), rows["dec"].to_numpy())
            for place, column, row in zip(here, x.tolist(), y.tolist(), strict=True):
                try:
                    image = coadd_pixels(opened, column, row, size, stamps).image
                except CutoutError as error:
                    yield place, str(error)
                    continue
                whole = np.where(np.isfinite(image), image, np.float32(0.0)).astype(np.float16).astype(np.float32)
                yield place, why_unusable(measure_missing(image, quality), quality) or whole


def score_lenses(
    predict: Predict, lenses: pa.Table, batches: Iterator[Batch], unknown: Sequence[str | None]
) -> tuple[pa.Table, Counter[str]]:
    """Lenses that can be scored with `logit` and `score`, and why the others cannot.

    Args:
        predict: the network.
        lenses: N rows, with the network's observing conditions.
        batches: places in `lenses`, their cutouts, and why there is none.
        unknown: (N,) which observing conditions are not known, None where all are.
    """
    scored = [lenses.slice(0, 0).append_column("logit", pa.array([], pa.float64()))]
    left_out: Counter[str] = Counter()
    with Progress(lenses.num_rows, "Cutting out and scoring lenses") as progress:
        for places, images_N3HW, reasons in batches:
            both = [cut or unknown[place] for cut, place in zip(reasons, places, strict=True)]
            good, bad = score_cutouts(predict, images_N3HW, lenses.take(pa.array(places)), both)
            scored.append(good)
            left_out.update(bad["quarantine_reason"].to_pylist())
            progress.advance(len(places))
    return pa.concat_tables(scored, promote_options="default"), left_out


def with_lenses(images: FinderImages, lenses: pa.Table) -> FinderImages:
    """The negatives of some scored images, and these scored lenses in place of their positives.

    Args:
        images: of a split.
        lenses: columns `GROUPED` and logit.
    """
    negative_N, count = ~images.positive, lenses.num_rows
    texts = {}
    for name in GROUPED:
        codes_N, names = images.texts.get(name, (np.full(len(images), -1), ()))
        values = lenses[name].to_pylist()
        known = tuple(sorted({*names, *(value for value in values if value is not None)}))
        of_old = np.array([*(known.index(value) for value in names), -1], np.int64)
        codes = [-1 if value is None else known.index(value) for value in values]
        texts[name] = (np.concatenate([np.array(codes, np.int64), of_old[codes_N[negative_N]]]), known)
    return FinderImages(
        np.concatenate([lenses["logit"].to_numpy(), images.logit[negative_N]]),
        np.arange(count + int(negative_N.sum())) < count,
        np.arange(count + int(negative_N.sum())),
        np.concatenate([np.full(count, np.nan), images.weight[negative_N]]),
        np.concatenate([lenses["healpix_128"].to_numpy(), images.cell[negative_N]]),
        {},
        texts,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write known_lenses.json and known_lenses.csv."""
    parser = argument_parser("Measure the recall of a finder of real images on known lenses that it has never seen.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--validation", required=True, type=Path, help="validation.json, for its thresholds")
    parser.add_argument("--test", required=True, type=Path, help="scores of the test split, for its negatives")
    parser.add_argument("--lenses", required=True, type=Path, help="results/catalogue/known_lenses.json")
    parser.add_argument("--galaxies", required=True, type=Path, help="manifest.json of the finder's dataset")
    parser.add_argument("--coadds", required=True, type=Path, help="coadds.json of the same")
    parser.add_argument("--stamp-settings", default="{}", help="the dataset's settings of stamps, as JSON or a path")
    parser.add_argument("--quality-settings", default="{}", help="what a usable cutout is, as JSON or a path")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--output", required=True, type=Path, help="known_lenses.json")
    parser.add_argument("--table", required=True, type=Path, help="known_lenses.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, AnchorEvaluationSettings)
    stamps = load_settings(arguments.stamp_settings, StampSettings, "--stamp-settings")
    quality = load_settings(arguments.quality_settings, CutoutQualitySettings, "--quality-settings")
    started = datetime.now(UTC)

    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    test, validation = load_scores(arguments.test, "test"), read_validation(arguments.validation)
    one_model(
        {
            str(arguments.model): finder.card["weights"]["sha256"],
            str(arguments.validation): validation["model_sha256"],
            str(arguments.test): test.facts.get("model_sha256"),
        }
    )
    if validation["scores_sha256"]["test"] != test.sha256:
        raise BadInputError(
            f"{arguments.validation} was measured on other scores than {arguments.test}; validate again."
        )
    galaxies, coadds = load_manifest(arguments.galaxies, "galaxies"), load_manifest(arguments.coadds, "coadds")
    real = RealImageSettings.model_validate(galaxies.facts["settings"])
    if real.path != "coadds":
        raise BadInputError(f"{arguments.galaxies} has path: {real.path}; lenses are cut out of coadds here.")
    known = load_manifest(arguments.lenses, "positives")
    rows = positive_rows(pa.concat_tables(pq.read_table(path) for path in verified_paths(known)), real)
    seen = learned_positions(galaxies).near(rows["ra"].to_numpy(), rows["dec"].to_numpy(), real.exclude_arcsec)
    lenses = rows.filter(pa.array(~seen))
    size = finder.preprocess.size
    batches = _batches(cut_lenses(lenses, coadds, size, stamps, quality), size, settings.batch)
    unknown = condition_reasons(lenses, finder.model.settings.meta_columns)
    found, left_out = score_lenses(finder.predictor(settings.batch), lenses, batches, unknown)
    left_out[SEEN] = int(seen.sum())
    result = {
        "generation": test.facts.get("generation"),
        "model_sha256": test.facts.get("model_sha256"),
        "counts": {"known": rows.num_rows, "scored": found.num_rows, "left_out": dict(sorted((+left_out).items()))},
        "exclude_arcsec": real.exclude_arcsec,
        **measure(with_lenses(read_images(test), found), validation["thresholds"], settings.confidence),
        "notes": list(NOTES),
    }
    inputs = [arguments.model, arguments.validation, arguments.test, arguments.lenses, arguments.galaxies]
    used = {"anchors": settings, "stamps": stamps, "quality": quality}
    every = {name: one.model_dump(mode="json") for name, one in used.items()}
    # The table first: what reads the result finds the table that belongs to it.
    table = found.select([name for name in TABLE_COLUMNS if name in found.column_names])
    write_text(arguments.table, csv_text(table.sort_by([("ra", "ascending"), ("dec", "ascending")])))
    write_result(arguments.output, result, MODULE, every, [*inputs, arguments.coadds], started)
    _logger.info("%d of %d known lenses scored; the others: %s", found.num_rows, rows.num_rows, dict(+left_out))


def measure(images: FinderImages, thresholds: Mapping[str, Mapping[str, Any]], confidence: float) -> dict[str, Any]:
    """Recall and AUC of groups of lenses, as validation.json has them of the test split.

    Args:
        images: lenses, and the negatives that AUC is against.
        thresholds: of validation.json; `logit` is null where one could not be had.
        confidence: of intervals.
    """
    cuts = {name: entry["logit"] for name, entry in thresholds.items()}
    return {
        "thresholds": {name: {key: entry[key] for key in ("logit", "status")} for name, entry in thresholds.items()},
        "recall": recall_by_group(images, cuts, confidence),
        "auc": {scheme: groups for scheme, groups in auc_by_group(images, confidence).items() if scheme != "against"},
        "confidence": confidence,
    }


def _batches(cutouts: Iterator[tuple[int, Images | str]], size: int, batch: int) -> Iterator[Batch]:
    """Places, images (zeros where there is none) and reasons, some at a time."""
    places, images, reasons = [], [], []
    for place, found in cutouts:
        places.append(place)
        images.append(np.zeros((3, size, size), np.float32) if isinstance(found, str) else found)
        reasons.append(found if isinstance(found, str) else None)
        if len(places) == batch:
            yield places, np.stack(images), reasons
            places, images, reasons = [], [], []
    if places:
        yield places, np.stack(images), reasons


if __name__ == "__main__":
    run(main)
