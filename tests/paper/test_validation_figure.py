"""The figure of a finder's validation."""

import copy

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.paper.figure_config import ValidationFigureSettings
from dark_halo_scope.paper.validation_figure import draw

from .figure_inputs import VALIDATION, at


def test_every_group_has_its_recall_and_its_interval() -> None:
    recall = draw(VALIDATION, ValidationFigureSettings()).axes[1]
    assert [text.get_text() for text in recall.get_yticklabels()] == [
        *("all lenses", "Tier-A", "Tier-B"),
        *("Tier-A, not circular", "Tier-B, not circular"),
    ]
    assert [0.65, 0.85] in [pytest.approx(list(line.get_xdata())) for line in recall.lines]
    assert [text.get_text() for text in recall.texts] == [
        "n = 60",
        "n = 25",
        "n = 35",
        "n = 10",
        "there was nothing to count",
    ]


def test_recall_that_is_not_circular_is_of_all_known_lenses_where_they_were_measured() -> None:
    known = {"recall": {"tier_not_circular": {"A": at(0.5, 400), "B": at(0.3, 900)}}}
    recall = draw(VALIDATION, ValidationFigureSettings(), known).axes[1]
    assert [text.get_text() for text in recall.texts] == ["n = 60", "n = 25", "n = 35", "n = 400", "n = 900"]


def test_rates_of_all_negatives_come_first_and_stand_twice() -> None:
    rates = draw(VALIDATION, ValidationFigureSettings()).axes[2]
    assert [text.get_text() for text in rates.get_yticklabels()] == ["all", "N1", "ring proxy"]
    points = [line.get_xdata()[0] for line in rates.lines if len(line.get_xdata()) == 1]
    assert sorted(points) == [0.01, 0.011, 0.015, 0.02, 0.04, 0.05]


def test_reliability_is_drawn_before_and_after_scaling() -> None:
    reliability = draw(VALIDATION, ValidationFigureSettings()).axes[0]
    assert [text.get_text() for text in reliability.get_legend().get_texts()] == [
        "as the network says",
        "after Platt scaling",
    ]


def test_probabilities_that_could_not_be_fitted_say_why() -> None:
    few = copy.deepcopy(VALIDATION) | {"calibration": {"status": "not measurable: too few lenses", "test": None}}
    assert [text.get_text() for text in draw(few, ValidationFigureSettings()).axes[0].texts] == [
        "not measurable: too few lenses"
    ]


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(BadInputError, match=r"no threshold 'p0\.9'; it has p0\.5"):
        draw(VALIDATION, ValidationFigureSettings(threshold="p0.9"))
    with pytest.raises(CorruptDataError, match="lacks 'recall'"):
        draw({"thresholds": {}}, ValidationFigureSettings())
