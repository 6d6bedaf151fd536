"""Gates as a table: numbers, verdicts and remedies, several results side by side."""

from pathlib import Path

import pytest

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.evaluation import show_gates

from . import toys
from .gates_files import write_gates


def test_the_table_shows_every_gate_verdict_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gates(tmp_path / "main", toys.sees_arcs)
    write_gates(tmp_path / "control", toys.sees_radial_profile, "no_hard_negatives")
    show_gates.main([str(tmp_path / name / "gates.json") for name in ("main", "control")])
    shown = capsys.readouterr().out
    for word in ("G1 core", "G5 occlusion", "≤ 0.05", "n=240", "gen5_prime", "no_hard_negatives", "FAIL"):
        assert word in shown
    verdicts = next(line for line in shown.splitlines() if "verdict" in line)
    assert verdicts.index("pass") < verdicts.index("fail")
    assert "no_hard_negatives: G2: The network still uses the radial profile" in shown
    assert "0.5 <= x < 1" not in shown


def test_strata_are_shown_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gates(tmp_path, toys.sees_arcs)
    show_gates.main([str(tmp_path / "gates.json"), "--strata"])
    shown = capsys.readouterr().out
    assert "too few n=0" in shown
    places = [shown.index(name) for name in ("│ x < 0.5", "│ 0.5 <= x < 1")]
    assert places == sorted(places)


def test_two_results_of_one_generation_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gates(tmp_path / "a", toys.sees_arcs)
    write_gates(tmp_path / "b", toys.sees_radial_profile)
    show_gates.main([str(tmp_path / name / "gates.json") for name in "ab"])
    verdicts = next(line for line in capsys.readouterr().out.splitlines() if "verdict" in line)
    assert "pass" in verdicts
    assert "fail" in verdicts


def test_another_json_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"weights": 1}')
    with pytest.raises(CorruptDataError, match=r"best\.json is not a gates\.json"):
        show_gates.main([str(tmp_path / "best.json")])
