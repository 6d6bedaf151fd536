"""The gate opens for a verdict of pass that can be traced and recomputed, and for nothing else (fault 27)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation import check_gates
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gate_check import GateClosedError, problems, sealed
from dark_halo_scope.evaluation.gates import measure_gates

from . import toys
from .gates_files import SETTINGS, write_gates


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passing")
    write_gates(folder, toys.sees_arcs)
    return folder


@pytest.fixture
def folder(passing: Path, tmp_path: Path) -> Path:
    """A copy of passing gates that a test may damage; its gates.json names the files in `passing`."""
    for name in ("gates.json", "gates.provenance.json", "best.json", "packed.json"):
        (tmp_path / name).write_bytes((passing / name).read_bytes())
    return tmp_path


def check(folder: Path, settings: GateSettings = SETTINGS, packed: bool = True) -> dict[str, Any]:
    given = {"model": folder / "best.json", **({"packed": folder / "packed.json"} if packed else {})}
    return check_gates.check(folder / "gates.json", given, settings)


def edit(folder: Path, change: Callable[[dict], None], reseal: bool = True) -> None:
    result = read_json(folder / "gates.json")
    change(result)
    write_json(folder / "gates.json", sealed(result) if reseal else result)


def test_a_verdict_of_pass_opens_the_gate(folder: Path) -> None:
    assert check(folder)["verdict"] == "pass"
    assert check(folder, packed=False)["verdict"] == "pass"


def test_the_command_line_exits_with_0_and_says_what_passed(folder: Path) -> None:
    arguments = ["--gates", folder / "gates.json", "--model", folder / "best.json", "--output", folder / "passed.json"]
    check_gates.main([*map(str, arguments), "--settings", SETTINGS.model_dump_json()])
    assert read_json(folder / "passed.json")["verdict"] == "pass"


def test_a_failed_gate_closes_it_and_says_which_number_and_what_to_do(tmp_path: Path) -> None:
    write_gates(tmp_path, toys.sees_radial_profile)
    with pytest.raises(GateClosedError, match=r"G2 radial is 1\.000, due at most 0\.6 .*hard-negative ratio.*G4"):
        check(tmp_path)


@pytest.mark.parametrize("name", ["gates.json", "gates.provenance.json", "best.json"])
def test_a_missing_file_closes_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(GateClosedError, match="does not exist"):
        check(folder)


def test_any_edit_by_hand_closes_it(folder: Path) -> None:
    edit(folder, lambda result: result.update(generation="gen6"), reseal=False)
    with pytest.raises(GateClosedError, match="not what measure_gates wrote"):
        check(folder)


def set_entry(gate: str, **values: Any) -> Callable[[dict], None]:
    def change(result: dict) -> None:
        entry = result["gates"][gate]
        entry.update(values)
        stratum = entry["strata"][entry["stratum"]]
        stratum.update({key: value for key, value in values.items() if key in stratum})

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_entry("G1", value=0.99), "G1 says passed True at 0.99 against 0.6"),
        (set_entry("G3", value=None), "G3 passed without a value"),
        (set_entry("G3", value="0.9"), "G3 is not a finite number"),
        (set_entry("G3", value=True), "G3 is not a finite number"),
        (set_entry("G4", n=0), "G4 rests on 0 pairs"),
        (set_entry("G4", hosts=3), "G4 rests on 240 pairs of 3 hosts"),
        (set_entry("G2", interval=None), "G2 has no interval"),
        (set_entry("G2", null=None), "G2 has no null"),
        (set_entry("G4", threshold=0.5), "G4 has threshold 0.5 where 0.05 is due"),
        (set_entry("G4", weight="important"), "G4 has weight 'important'"),
        (set_entry("G1", bound="at least"), "G1 has bound 'at least'"),
        (set_entry("G1", stratum="all"), "G1 has stratum 'all'"),
        (lambda result: result["gates"]["G1"].update(value=0.2), "G1 differs from its own stratum"),
        (lambda result: result["gates"].pop("G4"), "G4 is missing"),
        (lambda result: result["gates"].update(G6={}), "gates that do not exist: G6"),
        (lambda result: result["thresholds"].update(G4=0.5), "thresholds are not the configured ones"),
        (lambda result: result["settings"].update(seed=1), "other settings"),
        (lambda result: result.update(verdict="marginal"), "verdict is 'marginal' where its gates say 'pass'"),
        (lambda result: result.update(model_sha256=None), "which model it judges"),
    ],
)
def test_a_resealed_edit_that_contradicts_itself_closes_it(folder: Path, change: Callable, reason: str) -> None:
    edit(folder, change)
    with pytest.raises(GateClosedError) as closed:
        check(folder)
    assert reason in str(closed.value)


def test_a_failed_gate_cannot_be_declared_passed(tmp_path: Path) -> None:
    write_gates(tmp_path, toys.sees_radial_profile)

    def declare(result: dict) -> None:
        for entry in result["gates"].values():
            entry["passed"] = True
        result["verdict"] = "pass"

    edit(tmp_path, declare)
    with pytest.raises(GateClosedError, match="G2 says passed True"):
        check(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"gates": 3}', '{"gates": {"G1": NaN}}', "{"])
def test_what_is_not_a_gates_json_closes_it(folder: Path, text: str) -> None:
    (folder / "gates.json").write_text(text)
    with pytest.raises(GateClosedError, match="gate is closed"):
        check(folder)


def test_a_nan_cannot_hide_in_the_numbers(folder: Path) -> None:
    result = json.loads((folder / "gates.json").read_text())
    result["gates"]["G3"]["value"] = float("nan")
    assert any("not a finite number" in problem for problem in problems(result, SETTINGS))


def test_gates_of_another_model_or_other_pairs_are_closed(folder: Path) -> None:
    best = read_json(folder / "best.json")
    write_json(folder / "best.json", {**best, "epoch": 3})
    with pytest.raises(GateClosedError, match="another model file"):
        check(folder)
    write_json(folder / "best.json", best)
    write_json(folder / "packed.json", {"kind": "packed", "seed": 99})
    with pytest.raises(GateClosedError, match="another packed file"):
        check(folder)


def test_gates_that_judge_other_weights_are_closed(folder: Path) -> None:
    edit(folder, lambda result: result.update(model_sha256="b" * 64))
    with pytest.raises(GateClosedError, match="other weights"):
        check(folder)


def test_gates_whose_provenance_names_other_inputs_are_closed(folder: Path) -> None:
    provenance = read_json(folder / "gates.provenance.json")
    provenance["inputs"][0]["sha256"] = "c" * 64
    write_json(folder / "gates.provenance.json", provenance)
    with pytest.raises(GateClosedError, match="provenance file names other inputs"):
        check(folder)


def test_thresholds_changed_since_the_measurement_close_it(folder: Path) -> None:
    stricter = SETTINGS.model_copy(update={"thresholds": {**SETTINGS.thresholds, "G4": 0.01}})
    with pytest.raises(GateClosedError, match="other settings"):
        check(folder, stricter)


def test_gates_measured_without_intervals_do_not_open_it() -> None:
    quick = SETTINGS.without_resampling()
    measured = measure_gates(toys.sees_arcs, toys.make_split(), quick, np.random.default_rng(0))
    found = problems(sealed({**measured, "settings": quick.model_dump(mode="json"), "model_sha256": "a"}), quick)
    assert "G1 has no interval" in found
