"""Key numbers: every number of the paper's text is measured, printed by a macro, and says so where it is not there."""

import re
from pathlib import Path
from typing import Any

import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation.target_numbers import Number
from dark_halo_scope.paper.key_numbers import KeyNumber, main, tex_text

from .test_paper_tables import manifest, write_anchors, write_card, write_dataset, write_gates, write_performance

WEIGHTS = {"weights": {"sha256": "a" * 64}}


def arguments(folder: Path) -> dict[str, list[Path]]:
    write_json(folder / "survey.json", manifest("survey", {"name": "mini", "embedded": True}))
    write_dataset(folder, {"train": 13_820, "val": 0, "test": 1608}, ["positive", "control"])
    artifacts = [writer(folder, "gen5_prime") for writer in (write_gates, write_performance, write_anchors)]
    artifacts.append(write_card(folder, "gen5_prime", "main", {}, **WEIGHTS))
    return {
        "--survey": [folder / "survey.json"],
        "--packed": [folder / "packed.json"],
        "--quality": [folder / "quality.json"],
        "--artifacts": artifacts,
        "--output": [folder / "key_numbers.json"],
        "--tex": [folder / "key_numbers.tex"],
    }


def run(folder: Path, given: dict[str, list[Path]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The JSON, and what each macro prints."""
    main([str(item) for option, paths in given.items() for item in (option, *paths)])
    text = (folder / "key_numbers.tex").read_text()
    macros = re.findall(r"^\\newcommand\{\\([A-Za-z]+)\}\{(.*)\}$", text, re.MULTILINE)
    assert len(macros) == len(text.splitlines())
    return read_json(folder / "key_numbers.json"), dict(macros)


def test_macros_print_what_was_measured(tmp_path: Path) -> None:
    numbers, macros = run(tmp_path, arguments(tmp_path))
    assert macros["NPositives"] == r"13\,820"
    assert macros["NHardNegatives"] == "0"
    assert (macros["ThetaEMin"], macros["ThetaEMax"]) == ("0.50", "2.50")
    assert (macros["AUC"], macros["AUCLow"], macros["AUCHigh"]) == ("0.920", "0.910", "0.930")
    assert (macros["GateOne"], macros["GateOneThreshold"], macros["Verdict"]) == ("0.600", "0.60", "pass")
    assert (macros["TierARecall"], macros["TierARecallLow"], macros["TierARecallN"]) == ("0.40", "0.26", "50")
    assert macros["Generation"] == r"gen5\_prime"
    assert (macros["Parameters"], macros["ParametersMillion"]) == (r"231\,417", "0.23")
    assert numbers["AUC"]["source"] == "performance.json"
    assert numbers["TierARecall"]["interval"][0] == pytest.approx(0.264, abs=1e-3)
    assert {name for entry in numbers.values() for name in entry["macros"]} == set(macros)


def test_what_was_not_measured_says_so_and_keeps_its_macros(tmp_path: Path) -> None:
    """A text that names them compiles all the same."""
    numbers, macros = run(tmp_path, arguments(tmp_path))
    assert (macros["TPRAtFPROnePermille"], macros["TPRAtFPROnePermilleLow"]) == ("not measurable", "--")
    assert (macros["ECE"], macros["ECEN"]) == ("not measurable", "--")
    assert numbers["ECE"]["status"] == "not measured: there is no calibration"


@pytest.mark.parametrize("n", [None, 10])
def test_an_estimate_without_an_interval_keeps_its_macros(n: int | None) -> None:
    number = KeyNumber("AUC", "", "", Number(0.5, n, None, "measured"), 2, estimated=True)
    count = "--" if n is None else "10"
    assert number.macros() == {"AUC": "0.50", "AUCLow": "--", "AUCHigh": "--", "AUCN": count}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    given = arguments(tmp_path)
    run(tmp_path, given)
    first = [given[option][0].read_bytes() for option in ("--output", "--tex")]
    run(tmp_path, given)
    assert [given[option][0].read_bytes() for option in ("--output", "--tex")] == first


def test_numbers_of_two_generations_are_refused(tmp_path: Path) -> None:
    given = arguments(tmp_path)
    given["--artifacts"].append(write_gates(tmp_path, "gen2"))
    with pytest.raises(BadInputError, match="of one generation"):
        run(tmp_path, given)


def test_a_macro_is_named_with_letters_and_once() -> None:
    with pytest.raises(BadInputError, match="use letters only"):
        KeyNumber("Gate1", "", "", "x")
    number = KeyNumber("AUC", "", "", Number(0.5, 10, (0.4, 0.6), "measured"), 2, estimated=True)
    with pytest.raises(BadInputError, match="have the macro AUC, AUCHigh"):
        tex_text([number, number])


def test_negative_numbers_have_a_minus_sign_and_zero_has_none() -> None:
    number = KeyNumber("Drop", "", "", Number(-0.026, 10, (-0.05, -0.001), "measured"), 2, estimated=True)
    assert number.macros() == {"Drop": "$-$0.03", "DropLow": "$-$0.05", "DropHigh": "0.00", "DropN": "10"}
