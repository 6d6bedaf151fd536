"""Freeze a finder: best.json and validation.json -> frozen.json, the card that a selection function is measured with.

Copies of all cards lie beside it, in `frozen/`. A finder that was frozen before is not frozen as another one unless the
settings name the cards that are superseded: otherwise a rerun would move the threshold after the fact, without a word.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.code import code_hash
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import make_directory, read_json, write_json
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.evaluation.freeze import (
    NAME,
    NAME_DIGITS,
    FrozenChangedError,
    card_name,
    describe,
    load_frozen,
)
from dark_halo_scope.evaluation.gate_check import SEAL, seal, sealed
from dark_halo_scope.evaluation.validation_config import FreezeSettings

MODULE = "dark_halo_scope.evaluation.freeze_model"
#: What makes logits of images: its code is on the card.
SCORING_CODE = "dark_halo_scope.models.predict"

_CALIBRATION = ("calibrators", "prevalence")

_logger = logging.getLogger(__name__)


def read_validation(path: Path) -> dict[str, Any]:
    """A validation.json.

    Raises:
        CorruptDataError: it was edited.
    """
    result = read_json(path)
    if not isinstance(result, dict) or result.get(SEAL) != seal(result) or "thresholds" not in result:
        raise CorruptDataError(f"{path} is not what validate_finder wrote; validate the finder again.")
    return result


def make_card(
    best: Mapping[str, Any], best_path: Path, validation: Mapping[str, Any], behaviour: Mapping[str, Any]
) -> dict[str, Any]:
    """The card, without its seal.

    Args:
        best, best_path: the network.
        validation: its validation.json.
        behaviour: its logits of the probes, with their tolerance.

    Raises:
        BadInputError: the validation is of another network.
    """
    described = describe(best, best_path)
    if validation["model_sha256"] != described["weights_sha256"]:
        raise BadInputError(f"The validation is of other weights than {best_path}; validate the finder again.")
    calibration = validation["calibration"]
    card: dict[str, Any] = {
        "generation": validation["generation"],
        **described,
        "model_sha256": described["weights_sha256"],
        "thresholds": validation["thresholds"],
        "calibration": {key: calibration[key] for key in _CALIBRATION} if calibration["calibrators"] else None,
        "chosen_on": {"split": "val", "packed_sha256": validation["packed_sha256"]},
        "behaviour": dict(behaviour),
        "scoring_code": {"module": SCORING_CODE, "code_sha256": code_hash(SCORING_CODE)},
        "validation_sha256": validation[SEAL],
        "verdicts": validation["verdicts"],
    }
    return {**card, NAME: card_name(card)}


def refuse_second_card(name: str, folder: Path, settings: FreezeSettings) -> list[str]:
    """Names of earlier cards, all of which may be superseded.

    Args:
        name: of the new card.
        folder: of all cards that there were.
        settings: which of them may be superseded.

    Raises:
        FrozenChangedError: one of them may not.
    """
    earlier = sorted(path.stem for path in folder.glob("*.json") if path.stem != name[:NAME_DIGITS])
    kept = [other for other in earlier if other not in settings.supersedes]
    if kept:
        raise FrozenChangedError(
            f"The finder was frozen before, as {', '.join(kept)} ({folder}), and is another one now "
            f"({name[:NAME_DIGITS]}): its weights, preprocessing, thresholds or calibration changed. Restore it, or "
            "say in its settings that it is frozen anew: freeze.supersedes: "
            f"[{', '.join(repr(other) for other in earlier)}]."
        )
    return earlier


def main(argv: Sequence[str] | None = None) -> None:
    """Write frozen.json."""
    parser = argument_parser("Freeze a finder by checksum: network, preprocessing, thresholds and calibration.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--validation", required=True, type=Path, help="validation.json")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--output", required=True, type=Path, help="frozen.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, FreezeSettings)
    started = datetime.now(UTC)

    from dark_halo_scope.evaluation.frozen_behaviour import behaviour
    from dark_halo_scope.models.deploy import open_finder

    validation = read_validation(arguments.validation)
    finder = open_finder(arguments.model, arguments.device)
    predict = finder.predictor(settings.probe_images)
    answers = {**behaviour(predict, finder.card, settings.probe_images), "tolerance": settings.probe_tolerance}
    card = make_card(finder.card, arguments.model, validation, answers)
    folder = arguments.output.with_suffix("")
    card["supersedes"] = refuse_second_card(card[NAME], folder, settings)
    result = sealed(card)
    # First on record: a run that is killed in between may not leave a finder that can be frozen as another one unasked.
    make_directory(folder)
    write_json(folder / f"{card[NAME][:NAME_DIGITS]}.json", result)
    write_result(arguments.output, result, MODULE, settings, [arguments.model, arguments.validation], started)
    load_frozen(arguments.output)
    _logger.info("%s is frozen as %s.", card["generation"], card[NAME][:NAME_DIGITS])


if __name__ == "__main__":
    run(main)
