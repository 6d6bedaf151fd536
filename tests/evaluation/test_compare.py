"""A negative control must fail where the main generation passes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation import compare
from dark_halo_scope.evaluation.gate_check import GateClosedError, sealed

from . import toys
from .gates_files import write_gates


def run(tmp_path: Path, *extra: str) -> dict:
    arguments = ["--main", tmp_path / "main/gates.json", "--control", tmp_path / "control/gates.json"]
    compare.main([*map(str, arguments), "--output", str(tmp_path / "comparison.json"), *extra])
    return read_json(tmp_path / "comparison.json")


def test_a_shortcut_network_is_a_negative_control_of_a_finder(tmp_path: Path) -> None:
    write_gates(tmp_path / "main", toys.sees_arcs)
    write_gates(tmp_path / "control", toys.sees_radial_profile, "gen5_prime_no_hard_negatives")
    comparison = run(tmp_path)
    assert comparison["passed"]
    assert comparison["control"] == "gen5_prime_no_hard_negatives"
    assert len(comparison["checks"]) == 3


def test_a_control_that_passes_too_fails_the_comparison_and_the_numbers_are_kept(tmp_path: Path) -> None:
    write_gates(tmp_path / "main", toys.sees_arcs)
    write_gates(tmp_path / "control", toys.sees_arcs)
    with pytest.raises(GateClosedError, match="G2 is measured and fails in the negative control, nor that G4"):
        run(tmp_path)
    assert read_json(tmp_path / "comparison.json")["passed"] is False
    assert run(tmp_path, "--report-only")["passed"] is False


def test_a_control_that_was_not_measured_proves_nothing(tmp_path: Path) -> None:
    def broken(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        return np.full(len(images), np.nan)

    write_gates(tmp_path / "main", toys.sees_arcs)
    write_gates(tmp_path / "control", broken)
    with pytest.raises(GateClosedError, match="G2 is measured"):
        run(tmp_path)


def test_overlapping_intervals_are_no_difference(tmp_path: Path) -> None:
    main = write_gates(tmp_path / "main", toys.sees_arcs)
    control = write_gates(tmp_path / "control", toys.sees_radial_profile)
    control["gates"]["G4"]["interval"][0] = main["gates"]["G4"]["interval"][1]
    assert not compare.compare(main, control)["passed"]


def test_gates_of_other_pairs_are_not_compared(tmp_path: Path) -> None:
    write_gates(tmp_path / "main", toys.sees_arcs)
    write_gates(tmp_path / "control", toys.sees_radial_profile, seed=1)
    with pytest.raises(BadInputError, match="different packed images"):
        run(tmp_path)


def test_an_edited_file_is_not_compared(tmp_path: Path) -> None:
    result = write_gates(tmp_path / "main", toys.sees_arcs)
    write_gates(tmp_path / "control", toys.sees_radial_profile)
    write_json(tmp_path / "main/gates.json", {**result, "generation": "other"})
    with pytest.raises(BadInputError, match="not what measure_gates wrote"):
        run(tmp_path)
    write_json(tmp_path / "main/gates.json", sealed({**result, "split": "val"}))
    with pytest.raises(BadInputError, match="differ in split"):
        run(tmp_path)
