"""What a validation says against the plan's thresholds: the least that a finder must do, and what a paper wants."""

from collections.abc import Mapping, Sequence
from typing import Any

from dark_halo_scope.evaluation.target_values import target_entry
from dark_halo_scope.evaluation.targets import TARGETS, Target

#: Beginnings of the names of targets; sections 10.1, 6.3 and 10.2 of the calibration plan.
LEVELS = ("minimum", "validation", "publication")
#: What is at hand when a finder is validated; a selection function comes after.
_AT_HAND = {"validation", "history"}


def judge_targets(result: Mapping[str, Any], history: Mapping[str, Any] | None) -> dict[str, Any]:
    """`targets`, an entry for each threshold of the plan, and `verdicts`, by level.

    Targets are those of `evaluation.targets`, whichever generation the plan sets them for. One that needs what comes
    after the freeze is left to targets.json.

    Args:
        result: a validation.json so far.
        history: of the training; None where it is not at hand.
    """
    artifacts: dict[str, Any] = {"validation": result}
    if history is not None:
        artifacts["history"] = history
    generation = str(result["generation"])
    entries = {level: [target_entry(target, generation, artifacts) for target in _targets(level)] for level in LEVELS}
    return {
        "targets": [entry for level in LEVELS for entry in entries[level]],
        "verdicts": {level: overall([entry["verdict"] for entry in entries[level]]) for level in LEVELS},
    }


def overall(verdicts: Sequence[str]) -> str:
    """`met` where all are, `not met` where one is not, and otherwise `undecided`."""
    if "not met" in verdicts:
        return "not met"
    return "met" if verdicts and set(verdicts) == {"met"} else "undecided"


def _targets(level: str) -> list[Target]:
    return [
        target for target in TARGETS if target.name.startswith(f"{level}_") and set(target.metric.artifacts) <= _AT_HAND
    ]
