"""The figure of the realism ladder."""

import copy

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.paper.figure_config import LadderFigureSettings
from dark_halo_scope.paper.ladder_figure import draw

from .figure_inputs import LADDER


def test_rungs_stand_in_their_order_whatever_the_order_of_the_file() -> None:
    ladder = copy.deepcopy(LADDER)
    ladder["rungs"] = ladder["rungs"][::-1]
    labels = [text.get_text() for text in draw(ladder, LadderFigureSettings()).axes[0].get_yticklabels()]
    assert labels == [
        *("real lenses", "hosts without arcs"),
        *("1  Sérsic sources", "2  and the PSF's true width", "3  clumpy discs as sources"),
    ]


def test_numbers_and_intervals_are_those_of_the_file() -> None:
    probe, recall = draw(LADDER, LadderFigureSettings()).axes
    assert [0.8, 0.9] in [list(line.get_xdata()) for line in probe.lines]
    assert [0.125, 0.375] in [list(line.get_xdata()) for line in recall.lines]
    assert "hosts against hosts, 0.55" in probe.get_title()
    assert [text.get_text() for text in recall.texts] == ["n = 40", *["n = 100"] * 4]
    assert [0.64, 0.91] in [list(line.get_xdata()) for line in recall.lines]


def test_a_rung_whose_probe_is_not_measurable_says_why() -> None:
    probe = draw(LADDER, LadderFigureSettings()).axes[0]
    assert "too few (n = 3)" in [text.get_text() for text in probe.texts]


def test_a_floor_that_was_not_measured_is_said() -> None:
    probe = draw(LADDER | {"floor": {"value": None, "status": "too few"}}, LadderFigureSettings()).axes[0]
    assert "not measured" in probe.get_title()


def test_a_threshold_that_the_ladder_does_not_have_names_those_it_has() -> None:
    with pytest.raises(BadInputError, match=r"no threshold 'p=0\.5'; it has p0\.5"):
        draw(LADDER, LadderFigureSettings(threshold="p=0.5"))
    with pytest.raises(CorruptDataError, match="no rungs"):
        draw({"rungs": []}, LadderFigureSettings())
