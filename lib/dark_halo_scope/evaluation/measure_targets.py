"""Measure every success target of the plans: the number, its interval, and whether the target is met.

Nothing here blocks: a target that is not met is a result. Numbers come from small files. Each verdict is that of the
whole interval, `by_value` that of the value alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest, write_result
from dark_halo_scope.evaluation.target_numbers import Artifacts, read_artifacts
from dark_halo_scope.evaluation.target_values import target_entry
from dark_halo_scope.evaluation.targets import TARGETS, generations

MODULE = "dark_halo_scope.evaluation.measure_targets"


def measure(artifacts: Mapping[str, Artifacts], survey: Mapping[str, Any]) -> dict[str, Any]:
    """targets.json: every target of every generation that it is set for, in the order of the registry.

    Args:
        artifacts: by generation, what was measured of it.
        survey: facts of the survey that all of it was measured on.

    Raises:
        BadInputError: a generation has artifacts and no target.
    """
    unknown = sorted(set(artifacts) - set(generations()))
    if unknown:
        raise BadInputError(f"No target is set for {', '.join(unknown)}; leave it out.")
    results = [
        target_entry(target, generation, artifacts.get(generation))
        for target in TARGETS
        for generation in target.generations
    ]
    return {
        "survey": {
            "name": survey["name"],
            "embedded": survey["embedded"],
            "condition": "a drawn sky with drawn lenses: no number here is one of the real sky"
            if survey["embedded"]
            else "the survey's own images; arcs are injected unless a target says otherwise",
        },
        "verdicts": dict(sorted(Counter(entry["verdict"] for entry in results).items())),
        "targets": results,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write targets.json."""
    parser = argument_parser("Measure every success target of the plans.")
    parser.add_argument("--survey", required=True, type=Path, help="survey.json")
    parser.add_argument(
        "--artifacts",
        nargs="+",
        required=True,
        type=Path,
        help="what was measured of each generation: .../{generation}/gates.json, performance.json, stratified_fpr.csv, "
        "calibration.json, completeness.json, anchors.json, and of its last stage "
        ".../{generation}/{stage}/best.json, history.json",
    )
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    survey = load_manifest(arguments.survey, "survey").facts
    measured = measure(read_artifacts(arguments.artifacts), survey)
    write_result(arguments.output, measured, MODULE, {}, [arguments.survey, *arguments.artifacts])


if __name__ == "__main__":
    run(main)
