"""Recall of a finder of real images on lenses that it has never seen: known_lenses.json, and every score in a CSV.

    best.json, validation.json, anchors, manifest.json and coadds.json of its dataset -> known_lenses.json

A finder learns from lenses of one kind of discovery, by default those that machine learning found in these very images,
so that recall on its test split says how alike two finders are. Here are all others that the survey has images of, cut
out by the path of its own images, at the thresholds of its validation. Those within reach of a lens that it was trained
or tuned on are left out and counted; so the rest chose nothing, in whatever split they lie.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from dark_halo_scope.core.files import read_json, write_text
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path, verified_paths, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.anchors import (
    CIRCULAR,
    COMPARED,
    Threshold,
    anchor_table,
    comparison_samples,
    excluded_reasons,
    measure_anchors,
)
from dark_halo_scope.evaluation.cutout_scores import condition_reasons, score_cutouts
from dark_halo_scope.evaluation.evaluate_anchors import csv_text, one_model
from dark_halo_scope.evaluation.score_inputs import load_scores
from dark_halo_scope.evaluation.score_table import read_scores
from dark_halo_scope.injection.cutout_quality import measure_missing, why_unusable
from dark_halo_scope.injection.inject import CutoutError
from dark_halo_scope.injection.real_rows import POSITIVE
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.real_stamps import coadd_pixels
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.cache_coadds import FILES, load_brick

MODULE = "dark_halo_scope.evaluation.measure_known_lenses"

#: Splits that a finder has learned from: weights from train; thresholds, probabilities and the epoch from val.
LEARNED = ("train", "val")
SEEN = "near a lens that it was trained or tuned on"
NOT_CACHED = "its brick is not among the dataset's coadds"

NOTES = (
    f"Lenses of discovery `{CIRCULAR}` were found by machine learning in these very images: recall on them is circular "
    "and says how alike two finders are; `not_circular` leaves them out.",
    "Recall is of lenses that somebody found, not of lenses that there are. Those known from spectra or from space may "
    "show nothing in these images; stress lists of such are under `stress` and in no other group.",
    "No lens here, in whatever split, is near one that the finder was trained or tuned on; thresholds are those of "
    "validation.json. Lenses on bricks that the finder's dataset has no galaxy of are not scored, but counted.",
    "AUC is against the negatives of the test split, of which there are more confusers than on the sky.",
)

Images = NDArray[np.float32]

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

    Cutouts are those that `cut_real_images` makes of galaxies at these positions, rounded to float16 as packed ones.
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


def cuts_of(validation: Mapping[str, Any]) -> list[Threshold]:
    """Thresholds of validation.json, in p of the raw score."""
    return [Threshold(name, entry["score"], entry["status"]) for name, entry in validation["thresholds"].items()]


def main(argv: Sequence[str] | None = None) -> None:
    """Write known_lenses.json and known_lenses.csv."""
    parser = argument_parser("Measure the recall of a finder of real images on known lenses that it has never seen.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--validation", required=True, type=Path, help="validation.json, for its thresholds")
    parser.add_argument("--test", required=True, type=Path, help="scores of the test split, for its negatives")
    parser.add_argument("--anchors", required=True, type=Path, help="results/anchors/list.json")
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

    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    predict, size = finder.predictor(settings.batch), finder.preprocess.size
    scores, validation = load_scores(arguments.test, "test"), read_json(arguments.validation)
    weights = one_model(
        {
            str(arguments.model): finder.card["weights"]["sha256"],
            str(arguments.validation): validation.get("model_sha256"),
            str(arguments.test): scores.facts.get("model_sha256"),
        }
    )
    galaxies, coadds = load_manifest(arguments.galaxies, "galaxies"), load_manifest(arguments.coadds, "coadds")
    if galaxies.facts["path"] != "coadds":
        raise BadInputError(
            f"{arguments.galaxies} has path: {galaxies.facts['path']}; lenses are cut out of coadds here."
        )
    anchors = pa.concat_tables(
        pq.read_table(path) for path in verified_paths(load_manifest(arguments.anchors, "anchors"))
    )
    reach = galaxies.facts["settings"]["exclude_arcsec"]
    seen = learned_positions(galaxies).near(anchors["ra"].to_numpy(), anchors["dec"].to_numpy(), reach)
    lenses = anchors.filter(pa.array(~seen))
    if not lenses.num_rows:
        raise BadInputError(
            f"The finder was trained or tuned on every lens of {arguments.anchors}; add a list of lenses to the "
            "survey's `anchors`."
        )
    scored, left_out = [], [SEEN] * int(seen.sum())
    unknown = condition_reasons(lenses, finder.model.settings.meta_columns)
    with Progress(lenses.num_rows, "Cutting out and scoring lenses") as progress:
        for places, images, reasons in _batches(
            cut_lenses(lenses, coadds, size, stamps, quality), size, settings.batch
        ):
            both = [cut or unknown[place] for cut, place in zip(reasons, places, strict=True)]
            good, bad = score_cutouts(predict, images, lenses.take(pa.array(places)), both)
            scored.append(good)
            left_out += bad["quarantine_reason"].to_pylist()
            progress.advance(len(places))
    rows = pa.concat_tables(scored)
    measured = measure_anchors(
        rows,
        excluded_reasons(left_out),
        comparison_samples(read_scores(scores, labels=tuple(COMPARED))),
        cuts_of(validation),
        settings,
        against="negative",
    )
    result = {
        "generation": scores.facts.get("generation"),
        "model_sha256": weights,
        "exclude_arcsec": reach,
        **measured,
        "notes": list(NOTES),
    }
    inputs = [arguments.model, arguments.validation, arguments.test, arguments.anchors, arguments.galaxies]
    inputs.append(arguments.coadds)
    every = {"anchors": settings.model_dump(mode="json"), "stamps": stamps.model_dump(mode="json")}
    every["quality"] = quality.model_dump(mode="json")
    # The table first: what reads the result finds the table that belongs to it.
    write_text(arguments.table, csv_text(anchor_table(rows)))
    write_result(arguments.output, result, MODULE, every, inputs)
    _logger.info("%d of %d known lenses scored: %s", rows.num_rows, anchors.num_rows, measured["counts"]["excluded"])


def _batches(
    cutouts: Iterator[tuple[int, Images | str]], size: int, batch: int
) -> Iterator[tuple[list[int], Images, list[str | None]]]:
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
