"""Exit with status 0 unless a calibration is bad and the configuration says that a bad one blocks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import CorruptDataError, DarkHaloScopeError
from dark_halo_scope.core.files import read_json, sha256_file, write_json
from dark_halo_scope.evaluation.calibration_config import CalibrationSettings
from dark_halo_scope.evaluation.gate_check import SEAL, seal


class CalibrationBlockedError(DarkHaloScopeError):
    """Probabilities are too far from what was observed."""


def objections(result: Mapping[str, Any], settings: CalibrationSettings) -> list[str]:
    """Why probabilities on the test split may not be trusted, as clauses; empty where they may.

    Both numbers are judged: over all rows a rare class hides any error, and among high probabilities none is hidden.
    """
    measured = result["test"]["probabilities"][settings.blocking_method]
    found = []
    for name, where in (("ece", "over all rows"), ("ece_above", f"among p > {settings.above:g}")):
        entry = measured[name]
        if entry["value"] is None:
            found.append(f"has no ECE {where} ({entry['status']})")
        elif entry["value"] > settings.max_ece:
            found.append(
                f"({settings.blocking_method}) has an ECE of {entry['value']:.3f} {where}, at most "
                f"{settings.max_ece:g} is due"
            )
    return found


def check(path: Path, settings: CalibrationSettings) -> dict[str, Any]:
    """The calibration.json, unless it blocks.

    Raises:
        CorruptDataError: it was altered, or measured with other settings.
        CalibrationBlockedError: it blocks; the sentence says why.
    """
    result = read_json(path)
    if not isinstance(result, dict) or result.get(SEAL) != seal(result):
        raise CorruptDataError(f"{path} is not what calibrate wrote; calibrate again.")
    if result["settings"] != settings.model_dump(mode="json"):
        raise CorruptDataError(f"{path} was measured with other settings than the ones now in force; calibrate again.")
    reasons = objections(result, settings)
    if settings.calibration_blocks and reasons:
        raise CalibrationBlockedError(f"The calibration of {path} blocks: it {'; it '.join(reasons)}.")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Fail where the calibration blocks."""
    parser = argument_parser("Exit with status 0 unless the calibration is bad and a bad one blocks.")
    parser.add_argument("--calibration", required=True, type=Path, help="calibration.json")
    parser.add_argument("--output", type=Path, help="written where it does not block")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, CalibrationSettings)
    result = check(arguments.calibration, settings)
    if arguments.output:
        passed = {key: result[key] for key in ("generation", "model_sha256", "blocks")}
        write_json(arguments.output, {**passed, "calibration_sha256": sha256_file(arguments.calibration)})


if __name__ == "__main__":
    run(main)
