"""Validate a finder of real images on its test split, which chose nothing: validation.json and top_candidates.csv.

Thresholds and probabilities come from the validation split. Lenses are those that somebody found: recall of those that
machine learning found in these very images says how alike two finders are, and is given apart.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_text
from dark_halo_scope.core.manifest import Manifest, load_manifest, write_result
from dark_halo_scope.evaluation import calibrate
from dark_halo_scope.evaluation.candidates import candidates_csv, top_rows
from dark_halo_scope.evaluation.finder_images import FinderImages, read_images, refuse_shared_cells
from dark_halo_scope.evaluation.finder_rates import (
    auc_by_group,
    auc_entry,
    fpr_by_group,
    negative_groups,
    recall_by_group,
)
from dark_halo_scope.evaluation.finder_regions import measure_regions
from dark_halo_scope.evaluation.finder_strata import measure_strata
from dark_halo_scope.evaluation.finder_thresholds import choose_thresholds
from dark_halo_scope.evaluation.finder_verdicts import judge_targets
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.number_entry import MEASURED, not_measurable
from dark_halo_scope.evaluation.score_inputs import load_scores, refuse_unlike
from dark_halo_scope.evaluation.score_splits import subject
from dark_halo_scope.evaluation.score_table import KIND
from dark_halo_scope.evaluation.target_numbers import as_number, difference
from dark_halo_scope.evaluation.validation_config import ValidationSettings

MODULE = "dark_halo_scope.evaluation.validate_finder"

NOTES = (
    "Recall is of lenses that somebody found, not of lenses that there are. Those of discovery "
    "`machine_learning_this_survey` were found by machine learning in these very images: recall on them is circular, "
    "and `not_circular` leaves them out.",
    "Rates of false positives of the sample are of negatives that were drawn by stratum, with more confusers than the "
    "sky has; those of the survey weigh each negative by the inverse of the probability that it was drawn with. They "
    "are rates of the pool of negatives, not of the sky: stars, galaxies outside its cuts (type, mask bits, exposures, "
    "z < 20, declination) and near lenses are not in it, and strata of it from which none was drawn have no weight "
    "(`covered_share` of negatives.json says how much of the pool the others are).",
    "A galaxy that is a negative may be a lens that nobody has found yet.",
)

_logger = logging.getLogger(__name__)


def validate(val: FinderImages, test: FinderImages, settings: ValidationSettings) -> dict[str, Any]:
    """Everything that validation.json measures.

    Args:
        val: images on which thresholds and probabilities are chosen.
        test: images that nothing was chosen on.
        settings: rates, thresholds, strata.
    """
    thresholds = choose_thresholds(val, settings)
    cuts = {name: entry["logit"] for name, entry in thresholds.items()}
    return {
        "counts": {"val": counts(val), "test": counts(test)},
        "thresholds": thresholds,
        "recall": recall_by_group(test, cuts, settings.confidence),
        "auc": auc_by_group(test, settings.confidence),
        "fpr": fpr_by_group(test, cuts, settings.confidence),
        "calibration": calibration(val, test, settings),
        "spatial": spatial(val, test, settings),
        "strata": measure_strata(test, cuts, settings),
        "notes": list(NOTES),
    }


def counts(images: FinderImages) -> dict[str, Any]:
    """How many images there are of each group."""
    return {
        "positives": int(images.positive.sum()),
        "negatives": int((~images.positive).sum()),
        **{f"tier {name}": int((images.positive & images.is_text("tier", name)).sum()) for name in ("A", "B")},
        **{name: int(rows.sum()) for name, rows in negative_groups(images).items() if name != "all"},
        "cells": len(set(images.cell[images.cell >= 0].tolist())),
    }


def calibration(val: FinderImages, test: FinderImages, settings: ValidationSettings) -> dict[str, Any]:
    """Probabilities fitted on val and judged on test; `calibrators` is null where val has too few of a class."""
    try:
        found = calibrate.calibrate(val.labelled(), test.labelled(), settings.calibration)
    except BadInputError as error:
        why = not_measurable(str(error).partition(";")[0])
        return {"status": why, "calibrators": None, "prevalence": None, "test": None, "shifted": []}
    return {"status": MEASURED, **{key: found[key] for key in ("calibrators", "prevalence", "test", "shifted")}}


def spatial(val: FinderImages, test: FinderImages, settings: ValidationSettings) -> dict[str, Any]:
    """Whether the finder is as good where it was not tuned: test against val, and region against region."""
    aucs = {
        name: auc_entry(images.logit[images.positive], images.logit[~images.positive], settings.confidence)
        for name, images in (("val", val), ("test", test))
    }
    apart = difference(as_number(aucs["test"]), as_number(aucs["val"]))
    return {
        "val_auc": aucs["val"],
        "test_auc": aucs["test"],
        "difference": apart.as_json(),
        "regions": measure_regions(test, settings),
    }


def candidate_scores(paths: Sequence[Path], model: str) -> list[Manifest]:
    """Scores whose highest are listed.

    Raises:
        BadInputError: they are of another network.
    """
    found = []
    for path in paths:
        manifest = load_manifest(path, KIND)
        if manifest.facts.get("model_sha256") != model:
            raise BadInputError(f"{path} are scores of another network; score those images again.")
        found.append(manifest)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Write validation.json and top_candidates.csv."""
    parser = argument_parser("Validate a finder of real images on its test split, which chose nothing.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--val", required=True, type=Path, help="scores of the validation split (val.json)")
    parser.add_argument("--test", required=True, type=Path, help="scores of the test split (test.json)")
    parser.add_argument("--history", type=Path, help="history.json of the training, for its red flags")
    parser.add_argument(
        "--candidates",
        nargs="+",
        type=Path,
        default=(),
        help="scores whose highest are listed (default: those of test)",
    )
    parser.add_argument("--output", required=True, type=Path, help="validation.json")
    parser.add_argument("--top", required=True, type=Path, help="top_candidates.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, ValidationSettings)
    started = datetime.now(UTC)
    manifests = {"val": load_scores(arguments.val, "val"), "test": load_scores(arguments.test, "test")}
    refuse_unlike(manifests["test"], manifests["val"], str(arguments.val))
    weights = str(read_json(arguments.model)["weights"]["sha256"])
    if manifests["test"].facts.get("model_sha256") != weights:
        raise BadInputError(f"{arguments.test} are scores of another network than {arguments.model}; score again.")
    listed = candidate_scores(arguments.candidates or [arguments.test], weights)
    val, test = (read_images(manifests[split]) for split in ("val", "test"))
    refuse_shared_cells(val, test, arguments.test)
    result: dict[str, Any] = {
        **subject(manifests["test"]),
        "split": "test",
        "settings": settings.model_dump(mode="json"),
        "scores_sha256": {split: manifest.sha256 for split, manifest in manifests.items()},
        **validate(val, test, settings),
    }
    history: Mapping[str, Any] | None = None if arguments.history is None else read_json(arguments.history)
    result |= judge_targets(result, history)
    inputs = [arguments.model, arguments.val, arguments.test, *arguments.candidates]
    if arguments.history is not None:
        inputs.append(arguments.history)
    fitted = result["calibration"] if result["calibration"]["calibrators"] else None
    write_text(arguments.top, candidates_csv(top_rows(listed, settings.top_k), fitted, settings.viewer))
    write_result(arguments.output, sealed(result), MODULE, settings, inputs, started)
    for name, verdict in result["verdicts"].items():
        _logger.info("%s: the %s thresholds of the plan are %s.", result["generation"], name, verdict)


if __name__ == "__main__":
    run(main)
