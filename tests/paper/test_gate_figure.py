"""The figure of gates by stratum."""

from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.paper.figure_config import GateFigureSettings
from dark_halo_scope.paper.gate_figure import draw, main, strata_of

from .figure_inputs import STRATA, gates


def texts(figure) -> list[str]:
    """All that is written into the panels."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_there_is_a_panel_for_each_gate_and_a_row_for_each_generation() -> None:
    figure = draw({"one": gates("one"), "two": gates("two")}, GateFigureSettings())
    assert [axes.get_title() for axes in figure.axes] == ["G1 title of G1\nAUC ≤ 0.6", "G4 title of G4\nAUC ≤ 0.6"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["one\npass", "two\npass"]


def test_only_the_stratum_that_a_gate_is_judged_on_is_filled() -> None:
    figure = draw({"one": gates("one")}, GateFigureSettings())
    for axes, judged in zip(figure.axes, ("x >= 1", "all"), strict=True):
        markers = [line for line in axes.lines if line.get_marker() not in (None, "None", "")]
        filled = [line.get_markerfacecolor() != "white" for line in markers]
        assert filled == [stratum == judged for stratum in STRATA]


def test_a_stratum_with_too_few_pairs_says_so_and_has_no_marker() -> None:
    figure = draw({"one": gates("one", value=None)}, GateFigureSettings())
    assert texts(figure).count("too few (n = 3)") == 2 * len(STRATA)
    assert not [line for axes in figure.axes for line in axes.lines if line.get_marker() in {"o", "D", "s", "v"}]


def test_a_generation_that_was_gated_otherwise_shows_no_number() -> None:
    both = {name: gates(name) for name in ("one", "two")}
    alone = draw(both, GateFigureSettings())
    figure = draw(both | {"odd": gates("odd", dataset="others")}, GateFigureSettings())
    assert texts(figure) == ["gated otherwise:\ndataset"] * 2
    numbers = [
        len([line for line in drawn.axes[0].lines if line.get_marker() in {"o", "D"}]) for drawn in (alone, figure)
    ]
    assert numbers[0] == numbers[1]


def test_strata_come_by_increasing_x_and_all_pairs_last() -> None:
    assert tuple(strata_of(gates("one"))) == STRATA


def test_edited_gates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gates.json"
    write_json(path, gates("one") | {"verdict": "fail"})
    with pytest.raises(CorruptDataError, match="not what measure_gates wrote"):
        main(["--gates", str(path), "--output", str(tmp_path / "gates.png")])


def test_more_strata_than_markers_are_refused() -> None:
    edges = [0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
    result = gates("one", settings={"confidence": 0.95, "strata": edges})
    names = strata_of(result | {"settings": {"strata": edges}, "gates": {"G1": {"strata": {}}}})
    assert names == []
    for entry in result["gates"].values():
        entry["strata"] = {f"stratum {number}": entry["strata"]["all"] for number in range(7)}
    with pytest.raises(BadInputError, match="7 strata"):
        draw({"one": result}, GateFigureSettings())
