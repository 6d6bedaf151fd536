"""The figure of ROC curves."""

from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.paper.figure_config import RocFigureSettings
from dark_halo_scope.paper.roc_figure import anchor_curve, main, read_anchor_scores, read_curve

from .figure_inputs import write_anchors, write_performance


def test_a_curve_is_read_as_it_was_measured(tmp_path: Path) -> None:
    path = write_performance(tmp_path / "performance.json", "gen")
    name, curve, positives, negatives = read_curve(path)
    assert (name, positives, negatives) == ("gen", 200, 200)
    assert curve.threshold[0] == np.inf
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert ((curve.low <= curve.tpr) & (curve.tpr <= curve.high)).all()


def test_anchors_are_counted_at_the_thresholds_of_the_injections(tmp_path: Path) -> None:
    _, curve, *_ = read_curve(write_performance(tmp_path / "performance.json", "gen"))
    scores = np.linspace(0.01, 0.99, 50)
    # A score equal to a threshold is a detection.
    scores[10] = curve.threshold[40]
    anchors = anchor_curve(curve, scores, RocFigureSettings())
    assert anchors is not None
    assert np.array_equal(anchors.tpr, [(scores >= threshold).mean() for threshold in curve.threshold])
    assert np.array_equal(anchors.fpr, curve.fpr)
    assert ((anchors.low <= anchors.tpr) & (anchors.tpr <= anchors.high)).all()


def test_twenty_of_fifty_anchors_have_the_interval_of_science(tmp_path: Path) -> None:
    _, curve, *_ = read_curve(write_performance(tmp_path / "performance.json", "gen"))
    middle = curve.threshold[len(curve.threshold) // 2]
    anchors = anchor_curve(curve, np.repeat([middle, 0.0], [20, 30]), RocFigureSettings())
    assert anchors is not None
    at = np.flatnonzero(curve.threshold == middle)[0]
    assert (round(anchors.low[at], 2), round(anchors.high[at], 2)) == (0.26, 0.55)


def test_stress_lists_are_in_no_curve(tmp_path: Path) -> None:
    path = write_anchors(tmp_path / "anchors.csv", [0.1, 0.2, 0.3], stress=2)
    assert read_anchor_scores(path).tolist() == [0.3]


def test_a_handful_of_anchors_makes_no_curve(tmp_path: Path) -> None:
    _, curve, *_ = read_curve(write_performance(tmp_path / "performance.json", "gen"))
    assert anchor_curve(curve, np.array([0.5]), RocFigureSettings(min_anchors=2)) is None


def test_a_file_without_a_curve_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "performance.json", {"generation": "gen"})
    with pytest.raises(CorruptDataError, match="no ROC curve"):
        read_curve(tmp_path / "performance.json")


def test_an_empty_curve_says_how_many_there_were(tmp_path: Path) -> None:
    path = write_performance(tmp_path / "performance.json", "gen")
    roc = {key: [] for key in ("fpr", "tpr", "tpr_low", "tpr_high", "threshold")}
    write_json(path, read_json(path) | {"roc": roc | {"n_positive": 0, "n_negative": 9}})
    with pytest.raises(BadInputError, match="0 positives, 9 controls"):
        read_curve(path)


def test_each_curve_needs_its_anchors(tmp_path: Path) -> None:
    performance = str(write_performance(tmp_path / "performance.json", "gen"))
    anchors = str(write_anchors(tmp_path / "anchors.csv", [0.5]))
    with pytest.raises(BadInputError, match=r"one anchors\.csv for each"):
        main(["--performance", performance, performance, "--anchors", anchors, "--output", str(tmp_path / "a.png")])
