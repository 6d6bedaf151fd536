"""Fit probabilities on validation scores and judge them on test scores: calibration.json.

Enforcing is another command (`check_calibration`): a workflow rule that fails would lose its outputs.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.evaluation.calibration import (
    apply_calibration,
    calibrators_record,
    fit_isotonic,
    fit_platt,
)
from dark_halo_scope.evaluation.calibration_config import CalibrationSettings, Method
from dark_halo_scope.evaluation.check_calibration import objections
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.reliability import Forecasts, class_weights, measure, measure_constant
from dark_halo_scope.evaluation.score_splits import LOGIT, Labelled, labelled, load_splits, subject
from dark_halo_scope.evaluation.score_table import read_scores

MODULE = "dark_halo_scope.evaluation.calibrate"
METHODS: tuple[Method, ...] = get_args(Method)

_logger = logging.getLogger(__name__)


def fit(val: Labelled, settings: CalibrationSettings) -> dict[str, Any]:
    """Both calibrations of validation scores, and the prevalence that they are for.

    Raises:
        BadInputError: a class has too few rows.
    """
    for name, count in (("positives", val.positives), ("negatives", val.negatives)):
        if count < settings.min_per_class:
            raise BadInputError(
                f"The validation scores have {count} {name}, and a calibration needs {settings.min_per_class}; "
                "score a larger split, or lower calibration.min_per_class."
            )
    platt, isotonic = fit_platt(val.logit, val.label), fit_isotonic(val.logit, val.label)
    return {"calibrators": calibrators_record(platt, isotonic), "prevalence": val.prevalence}


def judge(
    calibration: Mapping[str, Any], test: Labelled, settings: CalibrationSettings, prevalence: float | None
) -> dict[str, Any]:
    """What test labels say about the probabilities of every method.

    Args:
        calibration: what `fit` returns.
        test: scores that nothing was fitted on.
        settings: of the measurement.
        prevalence: to which probabilities are shifted and labels reweighted; None leaves both.
    """
    weights = (1.0, 1.0) if prevalence is None else class_weights(test.prevalence, prevalence)
    found: dict[str, Any] = {}
    for number, method in enumerate(METHODS):
        # The sigmoid alone means the prevalence that training showed, which is not on record: it stays as it is.
        if method == "raw" and prevalence is not None:
            continue
        p = apply_calibration(test.logit, calibration, method, prevalence)
        forecasts = Forecasts(test.label, p, test.host, *weights)
        rng = np.random.default_rng([settings.seed, number])
        found[method] = measure(forecasts, settings, rng)
    constant = calibration["prevalence"] if prevalence is None else prevalence
    nothing = Forecasts(test.label, np.full(len(test.label), constant), test.host, *weights)
    return {"probabilities": found, "constant": measure_constant(nothing, settings)}


def calibrate(val: Labelled, test: Labelled, settings: CalibrationSettings) -> dict[str, Any]:
    """Everything that calibration.json says about the two samples.

    Raises:
        BadInputError: a class of the validation scores has too few rows, or one of the test scores has none.
    """
    if not test.positives or not test.negatives:
        raise BadInputError("The test scores lack positives or negatives; score a split that has both.")
    fitted = fit(val, settings)
    result: dict[str, Any] = {
        **fitted,
        "val": val.counts(),
        "test": {**test.counts(), **judge(fitted, test, settings, None)},
        "shifted": [
            {"prevalence": prevalence, **judge(fitted, test, settings, prevalence)}
            for prevalence in settings.prevalences
        ],
    }
    reasons = objections(result, settings)
    result["blocks"] = {
        "enabled": settings.calibration_blocks,
        "method": settings.blocking_method,
        "max_ece": settings.max_ece,
        "reasons": reasons,
        "blocks": settings.calibration_blocks and bool(reasons),
    }
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Write calibration.json."""
    parser = argument_parser("Fit probabilities on validation scores and judge them on test scores.")
    parser.add_argument("--val", required=True, type=Path, help="scores of the validation split (val.json)")
    parser.add_argument("--test", required=True, type=Path, help="scores of the test split (test.json)")
    parser.add_argument("--output", required=True, type=Path, help="calibration.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, CalibrationSettings)
    started = datetime.now(UTC)
    manifests = load_splits(arguments.val, arguments.test)
    val, test = (labelled(read_scores(manifest, numbers=[LOGIT]), settings.negatives) for manifest in manifests)
    result = {
        **subject(manifests[1]),
        "settings": settings.model_dump(mode="json"),
        "scores_sha256": {split: found.sha256 for split, found in zip(("val", "test"), manifests, strict=True)},
        **calibrate(val, test, settings),
    }
    write_result(arguments.output, sealed(result), MODULE, settings, [arguments.val, arguments.test], started)
    for reason in result["blocks"]["reasons"]:
        _logger.warning("The calibration %s.", reason)


if __name__ == "__main__":
    run(main)
