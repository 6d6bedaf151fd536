"""The card of a frozen finder: what it was when it was frozen, and whether it still is.

A selection function is one of a network, of its preprocessing and of a threshold together. Whoever tunes one of them
after having seen the selection function measures nothing. So all three are frozen first, by checksum, and every step
towards a selection function asks here and refuses where anything changed since.

    frozen = require_frozen(Path("frozen.json"), Path("main/best.json"))
    detected = logit >= frozen.thresholds["p0.5"]

Nothing here imports torch: `evaluation.frozen_behaviour` compares what a loaded network says.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dark_halo_scope.core.errors import BadInputError, CorruptDataError, DarkHaloScopeError
from dark_halo_scope.core.files import has_sha256, read_json
from dark_halo_scope.evaluation.gate_check import SEAL, seal

#: Keys of best.json that say what a network is and what it is shown; whatever else it says is how it came about.
DESCRIPTION = ("model", "preprocessing", "stamp_size", "in_channels", "meta")
#: Keys of the card that make it this card and no other; its name is their checksum.
IDENTITY = ("generation", "weights_sha256", "weights_bytes", "digests", "thresholds", "calibration", "chosen_on")
#: Keys of its `behaviour` that do too. Logits of the same network differ between devices, and are none of them.
IDENTITY_OF_BEHAVIOUR = ("probes", "tolerance")
#: Key of the card's name.
NAME = "frozen_sha256"
NAME_DIGITS = 16  # in file names and sentences

_FREEZE_AGAIN = "freeze it again (rule freeze_model), which is on record, and measure its selection function anew"


class FrozenChangedError(DarkHaloScopeError):
    """A finder is not the one that was frozen."""


@dataclass(frozen=True)
class Frozen:
    """A frozen finder.

    generation: its name.
    sha256: name of the card: of the network, its preprocessing, thresholds and calibration. What is measured with it
        says it in its facts, as `frozen_sha256`.
    weights_sha256: of the network's weights.
    thresholds: by name, the raw logit at and above which an image is detected: `p0.5`, `p0.3`, `fpr0.01` (at that rate
        of false positives among the negatives of val), `survey_fpr0.01` (of the survey's, by 1 / sampling_prob),
        `recall0.9` (at that recall of the positives of val).
    unmeasured: by name, why a threshold could not be had.
    calibration: for `evaluation.calibration.apply_calibration`; None where nothing was fitted.
    card: all of frozen.json.
    """

    generation: str
    sha256: str
    weights_sha256: str
    thresholds: Mapping[str, float]
    unmeasured: Mapping[str, str]
    calibration: Mapping[str, Any] | None
    card: Mapping[str, Any]

    def threshold(self, name: str) -> float:
        """The raw logit of one threshold.

        Raises:
            BadInputError: there is none of that name, or it could not be had.
        """
        if name in self.thresholds:
            return self.thresholds[name]
        if name in self.unmeasured:
            raise BadInputError(f"{self.generation} was frozen without the threshold {name}: {self.unmeasured[name]}.")
        raise BadInputError(f"{self.generation} was frozen with no threshold {name}; there are: {self._names()}.")

    def _names(self) -> str:
        return ", ".join(self.thresholds) or "none"


def digest(value: Any) -> str:
    """SHA-256 of JSON-ready values, whatever the order of their keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def card_name(card: Mapping[str, Any]) -> str:
    """The card's name: a checksum of its identity, which holds nothing of code, dates or measured numbers."""
    asked = {key: card["behaviour"][key] for key in IDENTITY_OF_BEHAVIOUR}
    return digest({**{key: card[key] for key in IDENTITY}, "behaviour": asked})


def describe(best: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What best.json says of a network and its preprocessing, as a card has it: checksums, and the settings to read.

    Raises:
        BadInputError: it is no description of a trained model.
    """
    try:
        return {
            "weights_sha256": str(best["weights"]["sha256"]),
            "weights_bytes": int(best["weights"]["bytes"]),
            "digests": {key: digest(best[key]) for key in DESCRIPTION},
            "described": {key: best[key] for key in DESCRIPTION},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{where} is no description of a trained model ({error!r}); train it again.") from error


def load_frozen(path: Path) -> Frozen:
    """The finder that a frozen.json describes.

    Raises:
        BadInputError: there is no such file, or it is no card.
        CorruptDataError: it was edited.
    """
    card = read_json(path)
    if not isinstance(card, Mapping) or NAME not in card:
        raise BadInputError(f"{path} is not the card of a frozen finder; give a frozen.json.")
    if card.get(SEAL) != seal(card):
        raise CorruptDataError(f"{path} was changed after the finder was frozen; {_FREEZE_AGAIN}.")
    try:
        if card[NAME] != card_name(card):
            raise CorruptDataError(f"{path} does not have the name of its content; {_FREEZE_AGAIN}.")
        entries = card["thresholds"]
        return Frozen(
            generation=str(card["generation"]),
            sha256=str(card[NAME]),
            weights_sha256=str(card["weights_sha256"]),
            thresholds={name: float(it["logit"]) for name, it in entries.items() if it["logit"] is not None},
            unmeasured={name: str(it["status"]) for name, it in entries.items() if it["logit"] is None},
            calibration=card["calibration"],
            card=card,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path} lacks a part of a card ({error!r}); {_FREEZE_AGAIN}.") from error


def check_frozen(frozen: Frozen, best_path: Path) -> None:
    """Refuse a network, or a preprocessing, that is not the one that was frozen.

    The weights are read, not only what best.json says of them.

    Raises:
        FrozenChangedError: anything changed; the sentence says what.
        BadInputError: `best_path` is no description of a trained model.
    """
    best_path = Path(best_path)
    best = read_json(best_path)
    now = describe(best, best_path)
    changed = [key.replace("_", " ") for key in DESCRIPTION if now["digests"][key] != frozen.card["digests"].get(key)]
    if now["weights_sha256"] != frozen.weights_sha256:
        changed.insert(0, "weights")
    if changed:
        raise FrozenChangedError(
            f"{best_path} is not the finder that was frozen as {frozen.sha256[:NAME_DIGITS]}: its {', '.join(changed)} "
            f"changed since; restore it, or {_FREEZE_AGAIN}."
        )
    weights = best_path.parent / str(best["weights"]["uri"])
    if not weights.is_file() or not has_sha256(weights, frozen.weights_sha256):
        raise FrozenChangedError(
            f"The weights {weights} are not those that were frozen as {frozen.sha256[:NAME_DIGITS]}; restore them."
        )


def require_frozen(card_path: Path, best_path: Path) -> Frozen:
    """The frozen finder, where the card is whole and the network and preprocessing are still those of the card.

    Raises:
        FrozenChangedError, CorruptDataError, BadInputError: as `load_frozen` and `check_frozen`.
    """
    frozen = load_frozen(card_path)
    check_frozen(frozen, best_path)
    return frozen


def check_measured_with(frozen: Frozen, facts: Mapping[str, Any], where: Path) -> None:
    """Refuse what was measured with another card: other weights, other preprocessing or other thresholds.

    Args:
        frozen: the card in force.
        facts: of the manifest (or the JSON result) that was measured, with `frozen_sha256`.
        where: its path.

    Raises:
        FrozenChangedError: it was measured with another card, or says none.
    """
    measured = facts.get(NAME)
    if measured != frozen.sha256:
        said = f"the card {str(measured)[:NAME_DIGITS]}" if measured else "no card"
        raise FrozenChangedError(
            f"{where} was measured with {said}, and {frozen.generation} is frozen as {frozen.sha256[:NAME_DIGITS]}; "
            "measure it again."
        )
