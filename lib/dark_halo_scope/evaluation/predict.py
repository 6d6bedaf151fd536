"""Score your own list, of positions or of cutouts, with a trained network.

    python -m dark_halo_scope.evaluation.predict --model results/gen5_prime/main/best.json \\
        --coords list.csv --survey results/survey.json --output scores.csv

Every row of the list comes out, in its order, with `logit` and `score` (the logit's sigmoid), or with the `reason` why
it has none. PSF and depth are those of the brick. Cutouts are kept in a cache, from which a run that was stopped goes
on.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, ConfigError, CorruptDataError, StorageError
from dark_halo_scope.core.files import atomic_path, read_json
from dark_halo_scope.core.locks import lock, lock_path
from dark_halo_scope.core.manifest import scratch_directory, write_provenance
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.calibration import apply_calibration
from dark_halo_scope.evaluation.coordinate_list import read_coordinates
from dark_halo_scope.evaluation.cutout_scores import centre_crop, score_cutouts
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.predict_config import PredictSettings
from dark_halo_scope.evaluation.predict_rows import (
    OUTSIDE,
    REPORTED,
    Conditions,
    Request,
    TableWriter,
    check_suffix,
    flag_duplicates,
    look_up,
    output_table,
    refuse_taken_columns,
    settle_unknown,
    summary,
)
from dark_halo_scope.images.cutouts import TOO_BRIGHT
from dark_halo_scope.images.own_images import list_images, position, read_own_image
from dark_halo_scope.survey.conditions import CONDITIONS, read_conditions
from dark_halo_scope.survey.cutout_service import Cutout, NoCutout, fetch_list, open_client, unusable
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.names import PIXEL_SCALE

MODULE = "dark_halo_scope.evaluation.predict"

#: One image of (3, H, W) nanomaggies per pixel, or why there is none; and what to know of it.
Pixels = tuple[NDArray[np.float32] | None, str | None, tuple[str, ...]]

PROBABILITIES = ("p_platt", "p_survey")
"""Columns that a calibration adds."""

_logger = logging.getLogger(__name__)


def coordinate_request(path: Path) -> Request:
    """The rows of a CSV file with positions."""
    found = read_coordinates(path)
    n = found.rows.num_rows
    return Request(
        found.rows, [f"row {i + 1}" for i in range(n)], found.ra, found.dec, found.reasons, [[] for _ in range(n)]
    )


def image_request(paths: Sequence[Path]) -> Request:
    """A row for each image file, with the position that the file says."""
    places = [position(path) for path in paths]
    ra, dec = (np.array([np.nan if place is None else place[axis] for place in places]) for axis in (0, 1))
    names = [str(path) for path in paths]
    rows = pa.table({"image": names, "ra": pa.array(ra, mask=np.isnan(ra)), "dec": pa.array(dec, mask=np.isnan(dec))})
    reasons: list[str | None] = [None] * len(names)
    return Request(rows, names, ra, dec, reasons, [[] for _ in names])


def file_pixels(paths: Sequence[Path], size: int, max_zero_fraction: float) -> Iterator[Pixels]:
    """The middle of each image file, `size` pixels wide; a file that cannot be used is a reason, not an error."""
    for path in paths:
        try:
            own = read_own_image(path)
            image_3HW = np.ascontiguousarray(centre_crop(own.image_3HW, size), dtype=np.float32)
        except (BadInputError, CorruptDataError) as error:
            yield None, " ".join(str(error).split()), ()
        else:
            cut = Cutout(image_3HW, None, None, np.nan, np.nan, PIXEL_SCALE, "")
            reason = "pixels not finite" if not np.isfinite(image_3HW).all() else unusable(cut, max_zero_fraction)
            yield image_3HW, reason, own.flags


def service_pixels(outcomes: Iterator[Cutout | NoCutout], failed: Counter[str]) -> Iterator[Pixels]:
    """What the cutout service gave; `failed` is filled with reasons that are its fault -> how many."""
    for outcome in outcomes:
        if isinstance(outcome, NoCutout) and outcome.by_service:
            failed[outcome.reason] += 1
        yield (None, outcome.reason, ()) if isinstance(outcome, NoCutout) else (outcome.image_3HW, None, ())


def refuse_failed_service(failed: Counter[str], asked: int) -> None:
    """A list of which the service gave nothing has no scores, however short it is.

    Raises:
        StorageError: each of the `asked` cutouts failed by fault of the service.
    """
    if asked and failed.total() == asked:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in sorted(failed.items()))
        raise StorageError(
            f"All {asked} cutouts failed by fault of the service ({reasons}); nothing is written, run this again later."
        )


def predict_batches(
    predict: Predict,
    request: Request,
    conditions: Conditions,
    pixels: Iterator[Pixels],
    size: int,
    batch: int,
    probabilities: Mapping[str, Any],
) -> Iterator[pa.Table]:
    """Output rows, batch by batch, in the order of the list; reasons and flags of `request` are filled in.

    Args:
        predict: the network.
        request: N rows.
        conditions: of each, with all that the network takes.
        pixels: of the rows without a reason, in their order.
        size: side of the network's stamps.
        batch: images per forward pass.
        probabilities: name of a column -> function of logits (M,) to probabilities (M,).
    """
    for first in range(0, len(request), batch):
        part = range(first, min(first + batch, len(request)))
        images_B3HW = np.zeros((len(part), 3, size, size), dtype=np.float16)
        waiting = [index for index in part if request.reasons[index] is None]
        for index, (image, reason, flags) in zip(waiting, islice(pixels, len(waiting)), strict=True):
            request.flags[index] += flags
            if image is not None and reason is None and np.abs(image).max() > np.finfo(np.float16).max:
                reason = TOO_BRIGHT
            request.reasons[index] = reason
            if image is not None and reason is None:
                # As packed stamps are: what the network was trained on, to the bit.
                images_B3HW[index - first] = image
        inside = {name: values[part.start : part.stop] for name, values in conditions.values.items()}
        given = pa.table({"place": np.arange(len(part)), **inside})
        scored, bad = score_cutouts(predict, images_B3HW, given, request.reasons[part.start : part.stop])
        for place, reason in zip(bad["place"].to_pylist(), bad["quarantine_reason"].to_pylist(), strict=True):
            request.reasons[first + place] = reason
        place_M = scored["place"].to_numpy()
        logits_M = scored["logit"].to_numpy()
        columns = {"logit": logits_M, "score": scored["score"].to_numpy()}
        columns |= {name: function(logits_M) for name, function in probabilities.items()}
        yield output_table(
            request.rows.slice(first, len(part)),
            Conditions(conditions.brickname[part.start : part.stop], inside),
            {name: _spread(values_M, place_M, len(part)) for name, values_M in columns.items()},
            request.reasons[part.start : part.stop],
            request.flags[part.start : part.stop],
        )


def _spread(values_M: NDArray[np.float64], place_M: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    spread = np.full(count, np.nan)
    spread[place_M] = values_M
    return spread


def calibrated(path: Path | None, model_sha256: str, prevalence: float) -> dict[str, Any]:
    """Columns of probabilities that a calibration.json adds, each a function of logits; none without one.

    Raises:
        BadInputError: it is of another network, or no calibration.
    """
    if path is None:
        return {}
    calibration = read_json(path)
    if calibration.get("model_sha256") != model_sha256:
        raise BadInputError(f"{path} was fitted on the scores of another network; give the calibration of this one.")

    def platt(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return apply_calibration(logits, calibration, "platt")

    def survey(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return apply_calibration(logits, calibration, "platt", prevalence)

    platt(np.zeros(1))  # before anything is fetched
    return dict(zip(PROBABILITIES, (platt, survey), strict=True))


def _condition(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in CONDITIONS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(CONDITIONS)}")
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number) or number < 0 or (number == 0 and name != "ebv"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a positive number")
    return name, number


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, type=Path, help="best.json of the network")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--coords", type=Path, help="CSV with columns ra and dec (degrees, ICRS); all other columns are kept"
    )
    source.add_argument(
        "--images",
        nargs="+",
        type=Path,
        help="your own cutouts in nanomaggies of 0.262 arcsec, the galaxy in the middle: FITS cubes as the viewer "
        "gives them, NPZ files with `cutout` (H, W, 3) or image_g, image_r, image_z, or folders of these",
    )
    parser.add_argument("--survey", type=Path, help="survey.json: PSF and depth of each brick; needed for --coords")
    parser.add_argument("--output", required=True, type=Path, help="scores, .csv or .parquet")
    parser.add_argument("--calibration", type=Path, help="calibration.json of the network: adds p_platt and p_survey")
    parser.add_argument("--cache", type=Path, help="where cutouts are kept (default: in the scratch directory)")
    parser.add_argument(
        "--unknown-conditions",
        choices=("refuse", "flag"),
        default="refuse",
        help="what to do where the network needs PSF or depth and they are unknown: refuse the list (default), or take "
        "training's mean and flag the row",
    )
    parser.add_argument(
        "--condition",
        type=_condition,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="such as psfsize_r=1.2 (arcsec) or psfdepth_r=24.3 (5-sigma AB), for rows of which nothing else is known",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the scores of a list."""
    arguments = _parser().parse_args(argv)
    settings = load_settings(arguments.settings, PredictSettings)
    started = datetime.now(UTC)
    if arguments.coords is not None and arguments.survey is None:
        raise ConfigError("A list of positions needs --survey: cutouts, PSF and depth come from its bricks.")
    check_suffix(arguments.output)
    for name in ("model", "calibration"):
        path = getattr(arguments, name)
        if path is not None and not path.is_file():
            raise BadInputError(f"{path} is not there; correct --{name}.")
    survey = None if arguments.survey is None else load_survey(arguments.survey)
    files = [] if arguments.images is None else list_images(arguments.images)
    request = image_request(files) if arguments.coords is None else coordinate_request(arguments.coords)
    made = ["logit", "score", *(PROBABILITIES if arguments.calibration else ()), "brickname", "flags", "reason"]
    refuse_taken_columns(request.rows, made, str(arguments.coords or "The list of images"))

    # After the list: they take seconds to load, and a mistyped name none to find.
    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    probabilities = calibrated(arguments.calibration, finder.card["weights"]["sha256"], settings.survey_prevalence)
    conditions = _conditions(
        request, survey, arguments, settings, finder.model.settings.meta_columns, finder.model.meta_mean.tolist()
    )

    predict = finder.predictor(settings.batch)
    with ExitStack() as stack:
        stack.enter_context(lock(lock_path(arguments.output)))
        progress = stack.enter_context(Progress(len(request), "Scoring a list (rows)"))
        failed: Counter[str] = Counter()
        asked = sum(reason is None for reason in request.reasons)
        pixels = _pixels(stack, request, files, survey, finder.preprocess.size, arguments, settings, failed)
        target = stack.enter_context(atomic_path(arguments.output))
        with TableWriter(target, arguments.output.suffix == ".parquet") as writer:
            for table in predict_batches(
                predict, request, conditions, pixels, finder.preprocess.size, settings.batch, probabilities
            ):
                writer.write(table)
                progress.advance(table.num_rows)
        refuse_failed_service(failed, asked)
        inputs = [
            path
            for path in (arguments.model, arguments.coords, arguments.survey, arguments.calibration)
            if path is not None
        ]
        write_provenance(arguments.output, MODULE, settings, inputs, started)
    nothing = all(reason is not None for reason in request.reasons)
    _logger.log(logging.WARNING if nothing else logging.INFO, "%s: %s", arguments.output, summary(request.reasons))


def _conditions(
    request: Request,
    survey: SurveyDescription | None,
    arguments: argparse.Namespace,
    settings: PredictSettings,
    meta_columns: Sequence[str],
    mean: Sequence[float],
) -> Conditions:
    flag_duplicates(request, settings.duplicate_arcsec)
    bricks = None if survey is None else read_conditions(survey)
    names = list(dict.fromkeys([*REPORTED, *meta_columns]))
    conditions = look_up(request, bricks, dict(arguments.condition), names)
    if arguments.coords is not None:
        # There is no image of it: the service need not be asked.
        request.reasons = [
            reason or (OUTSIDE if brick is None else None)
            for reason, brick in zip(request.reasons, conditions.brickname, strict=True)
        ]
    return settle_unknown(request, conditions, meta_columns, mean, arguments.unknown_conditions == "flag")


def _pixels(
    stack: ExitStack,
    request: Request,
    files: Sequence[Path],
    survey: SurveyDescription | None,
    size: int,
    arguments: argparse.Namespace,
    settings: PredictSettings,
    failed: Counter[str],
) -> Iterator[Pixels]:
    service = settings.service(survey is not None and survey.embedded)
    if arguments.coords is None:
        return file_pixels(files, size, service.max_zero_fraction)
    cache = arguments.cache or scratch_directory() / "cutouts"
    client = stack.enter_context(open_client(service, survey, cache, settings.asking))
    wanted = np.array([reason is None for reason in request.reasons], dtype=bool)
    return service_pixels(fetch_list(client, request.ra[wanted], request.dec[wanted], size), failed)


if __name__ == "__main__":
    run(main)
