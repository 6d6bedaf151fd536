"""The numbers that the paper's text names, as JSON and as TeX macros, so that no number is typed by hand.

A number called TierARecall gives the macro of that name and, where it was estimated, those of its interval and count:
TierARecallLow, TierARecallHigh, TierARecallN. What was not measurable says so in the text as well.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_text
from dark_halo_scope.core.manifest import load_manifest, write_result
from dark_halo_scope.evaluation.target_metrics import Where
from dark_halo_scope.evaluation.target_numbers import MEASURED, Artifacts, Number, number_at, read_artifacts
from dark_halo_scope.paper.tables import tex_escaped

MODULE = "dark_halo_scope.paper.key_numbers"

_NAME = re.compile("[A-Za-z]+")
_NOT_MEASURABLE = "not measurable"
_ORDINALS = ("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


@dataclass(frozen=True)
class KeyNumber:
    """A number of the text, or a word.

    name: of the macro, letters only. value: a Number, or a text as it is printed. digits: after the decimal point.
    estimated: whether it has macros of its interval and count, also where an artifact gives neither: a text that names
    them compiles all the same.
    """

    name: str
    what: str
    source: str
    value: Number | str
    digits: int = 0
    unit: str = ""
    estimated: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadInputError(f"A TeX macro cannot be called {self.name!r}; use letters only.")

    def as_json(self) -> dict[str, Any]:
        """The entry of key_numbers.json, with the text that TeX prints."""
        entry = {"text": self.value} if isinstance(self.value, str) else self.value.as_json()
        return {**entry, "what": self.what, "unit": self.unit, "source": self.source, "macros": self.macros()}

    def macros(self) -> dict[str, str]:
        """Name of each macro -> what it prints."""
        if isinstance(self.value, str):
            return {self.name: tex_escaped(self.value)}
        number = self.value
        main = _NOT_MEASURABLE if number.value is None else _printed(number.value, self.digits)
        if not self.estimated:
            return {self.name: main}
        low, high = (_printed(end, self.digits) for end in number.interval) if number.interval else ("--", "--")
        n = "--" if number.n is None else _printed(number.n, 0)
        return {self.name: main, f"{self.name}Low": low, f"{self.name}High": high, f"{self.name}N": n}


def _printed(value: float, digits: int) -> str:
    r"""A number in TeX, thousands set apart: `13\,820`, `0.50`, `$-$0.02`."""
    text = f"{abs(value):,.{digits}f}".replace(",", r"\,")
    return f"$-${text}" if value < 0 and float(f"{value:.{digits}f}") else text


def _exact(value: float) -> Number:
    """A number that was counted or set, not estimated."""
    return Number(float(value), None, None, MEASURED)


def data_numbers(packed: Mapping[str, Any], quality: Mapping[str, Any], dataset: str) -> list[KeyNumber]:
    """What a generation was trained on.

    Args:
        packed: facts of packed.json.
        quality: quality.json.
        dataset: whose they are.
    """
    source = f"{dataset}: packed.json, quality.json"
    pairs = packed["splits"]["train"]
    kinds = packed["kinds"]
    found = [
        KeyNumber("NPositives", "positives of the training split", source, _exact(pairs)),
        KeyNumber("NControls", "their controls", source, _exact(pairs * ("control" in kinds))),
        KeyNumber("NHardNegatives", "their hard negatives", source, _exact(pairs * ("hard_negative" in kinds))),
        KeyNumber("NHosts", "galaxies of the training split", source, _exact(quality["counts"]["train"]["hosts"])),
        KeyNumber("NTestPairs", "pairs of the test split", source, _exact(packed["splits"]["test"])),
        KeyNumber("NTestHosts", "galaxies of the test split", source, _exact(quality["counts"]["test"]["hosts"])),
    ]
    columns = {"ThetaE": ("theta_e_arcsec", "Einstein radius"), "PSF": ("psfsize_r", "PSF FWHM in r")}
    for name, (column, what) in columns.items():
        values = quality["distributions"]["train"][column]
        for suffix, percentile, end in (("Min", "p00", "least"), ("Max", "p100", "greatest")):
            number = _exact(values[percentile]) if pairs else Number.unmeasured("not measurable: no positives", 0)
            found.append(KeyNumber(f"{name}{suffix}", f"{end} {what} of training", source, number, 2, "arcsec"))
    return found


def model_numbers(card: Mapping[str, Any]) -> list[KeyNumber]:
    """The network, from its best.json."""
    source = "best.json"
    backbone = card["model"]["backbone"].replace("_", " ")
    return [
        KeyNumber("Generation", "whose numbers these are", source, str(card["generation"])),
        KeyNumber("Architecture", "backbone", source, backbone),
        KeyNumber("Parameters", "trained parameters", source, _exact(card["parameters"])),
        KeyNumber("ParametersMillion", "trained parameters, millions", source, _exact(card["parameters"] / 1e6), 2),
        KeyNumber("InputChannels", "channels", source, _exact(card["in_channels"])),
        KeyNumber("StampSize", "side of the image", source, _exact(card["stamp_size"]), unit="pixels"),
        KeyNumber("Epochs", "epochs of training at most", source, _exact(card["training"]["epochs"])),
        KeyNumber("BestEpoch", "epoch whose weights were kept, from 1", source, _exact(card["epoch"] + 1)),
    ]


def performance_numbers(artifacts: Artifacts) -> list[KeyNumber]:
    """What the network reaches on test pairs and known lenses."""
    pairs = "positives_vs_controls"

    def at(name: str, what: str, artifact: str, *steps: str | Where, digits: int = 3) -> KeyNumber:
        return KeyNumber(name, what, f"{artifact}.json", number_at(artifacts, artifact, steps), digits, estimated=True)

    def recall(name: str, what: str, scheme: str, group: str, cut: str) -> KeyNumber:
        return at(name, what, "anchors", "recall", scheme, group, cut, digits=2)

    return [
        at("AUC", "AUC of positives against controls, test split", "performance", pairs, "auroc"),
        at("TPRAtFPROnePercent", "TPR at FPR 1e-2", "performance", pairs, "tpr_at_fpr", Where("fpr_target", 1e-2)),
        at("TPRAtFPROnePermille", "TPR at FPR 1e-3", "performance", pairs, "tpr_at_fpr", Where("fpr_target", 1e-3)),
        at(
            "HardNegativeFPR",
            "hard negatives with p of at least 0.5",
            "performance",
            "fpr_at_threshold",
            "hard_negative",
        ),
        at("ECE", "ECE after Platt scaling", "calibration", "test", "probabilities", "platt", "ece"),
        recall("TierARecall", "recall of Tier-A at p = 0.5", "tier_gen5_prime", "A", "p0.5"),
        recall("TierARecallLoose", "recall of Tier-A at p = 0.3", "tier_gen5_prime", "A", "p0.3"),
        recall("ConfidentRecall", "recall of lenses graded confident, at p = 0.5", "tier_grade", "A", "p0.5"),
        recall("AnchorRecall", "recall of all known lenses, at p = 0.5", "overall", "headline", "p0.5"),
    ]


def gate_numbers(gates: Mapping[str, Any]) -> list[KeyNumber]:
    """Every gate with its threshold, and the verdict; `G1` is `GateOne`."""
    source = "gates.json"
    found = [KeyNumber("Verdict", "verdict of the gates", source, str(gates["verdict"]))]
    for name, gate in gates["gates"].items():
        macro = f"Gate{_ORDINALS[int(name.removeprefix('G')) - 1]}"
        due = f"{gate['title']}, {gate['bound']} {gate['threshold']:g}"
        number = number_at({"gates": gates}, "gates", ("gates", name))
        found.append(KeyNumber(macro, f"{name}: {due}", source, number, 3, estimated=True))
        found.append(KeyNumber(f"{macro}Threshold", f"threshold of {name}", source, _exact(gate["threshold"]), 2))
    return found


def tex_text(numbers: Sequence[KeyNumber]) -> str:
    r"""One `\newcommand` a macro, in order.

    Raises:
        BadInputError: two numbers have a macro of one name.
    """
    macros = [item for number in numbers for item in number.macros().items()]
    names = [name for name, _ in macros]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInputError(f"Two key numbers have the macro {', '.join(twice)}; rename one.")
    return "".join(rf"\newcommand{{\{name}}}{{{text}}}" + "\n" for name, text in macros)


def main(argv: Sequence[str] | None = None) -> None:
    """Write key_numbers.json and key_numbers.tex."""
    parser = argument_parser("Write the numbers that the paper's text names.")
    parser.add_argument("--survey", required=True, type=Path, help="survey.json")
    parser.add_argument("--packed", required=True, type=Path, help="packed.json of the dataset of training")
    parser.add_argument("--quality", required=True, type=Path, help="quality.json of the same")
    parser.add_argument(
        "--artifacts",
        nargs="+",
        required=True,
        type=Path,
        help="best.json, gates.json, performance.json, calibration.json and anchors.json of one generation",
    )
    parser.add_argument("--output", required=True, type=Path, help="key_numbers.json")
    parser.add_argument("--tex", required=True, type=Path, help="key_numbers.tex")
    arguments = parser.parse_args(argv)
    generations = read_artifacts(arguments.artifacts)
    if len(generations) != 1 or not {"best", "gates"} <= set(*generations.values()):
        raise BadInputError(
            "Key numbers are of one generation, of which they need best.json and gates.json; give both."
        )
    artifacts = next(iter(generations.values()))
    survey = load_manifest(arguments.survey, "survey").facts
    numbers = [
        KeyNumber("SurveyName", "survey", "survey.json", str(survey["name"])),
        *data_numbers(
            load_manifest(arguments.packed, "packed").facts, read_json(arguments.quality), artifacts["best"]["dataset"]
        ),
        *model_numbers(artifacts["best"]),
        *performance_numbers(artifacts),
        *gate_numbers(artifacts["gates"]),
    ]
    # The macros first: whoever finds the result finds the macros that belong to it.
    write_text(arguments.tex, tex_text(numbers))
    inputs = [arguments.survey, arguments.packed, arguments.quality, *arguments.artifacts]
    write_result(arguments.output, {number.name: number.as_json() for number in numbers}, MODULE, {}, inputs)


if __name__ == "__main__":
    run(main)
