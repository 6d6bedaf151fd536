"""Metrics agree with scikit-learn where it has them, and with counting where it does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from dark_halo_scope.evaluation import metrics


@st.composite
def labelled_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores on a coarse grid, so that ties within and between classes are common; both classes present."""
    n = draw(st.integers(2, 60))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    labels[:2] = [0, 1]
    levels = draw(st.integers(1, 8))
    scores = np.array(draw(st.lists(st.integers(0, levels), min_size=n, max_size=n)), dtype=float)
    return labels, scores


@given(labelled_scores())
@settings(max_examples=200, deadline=None)
def test_auc_equals_sklearn_with_ties(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = data
    assert metrics.auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)


@given(labelled_scores())
@settings(max_examples=200, deadline=None)
def test_roc_equals_sklearn_and_starts_at_the_origin(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = data
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores)
    expected = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for mine, theirs in zip((fpr, tpr, thresholds), expected, strict=True):
        np.testing.assert_allclose(mine, theirs)
    assert (fpr[0], tpr[0], thresholds[0]) == (0, 0, np.inf)
    assert (fpr[-1], tpr[-1]) == (1, 1)


@given(labelled_scores())
@settings(max_examples=200, deadline=None)
def test_average_precision_equals_sklearn_and_carries_its_prevalence(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = data
    area = metrics.average_precision(labels, scores)
    assert area.value == pytest.approx(sklearn_metrics.average_precision_score(labels, scores), abs=1e-12)
    assert area.prevalence == labels.mean()


def test_all_scores_tied_is_a_coin_toss() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    fpr, tpr, _ = metrics.roc_curve(labels, np.zeros(5))
    np.testing.assert_array_equal(fpr, [0, 1])
    np.testing.assert_array_equal(tpr, [0, 1])
    assert metrics.auc(labels, np.zeros(5)) == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [0.1, 0.2], "both classes"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, 1, 1], [0.1, 0.2], "one length"),
    ],
)
def test_impossible_input_is_an_error_not_a_number(labels: list, scores: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.auc(labels, scores)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=50),
    st.lists(st.integers(0, 20), min_size=1, max_size=50),
    st.floats(0.01, 0.99),
)
@settings(max_examples=300, deadline=None)
def test_tpr_at_fpr_is_the_best_threshold_that_keeps_the_rate(pos: list[int], neg: list[int], target: float) -> None:
    positive, negative = np.array(pos, dtype=float), np.array(neg, dtype=float)
    point = metrics.tpr_at_fpr(positive, negative, target)
    reached = np.mean(negative >= point.threshold)
    assert point.fpr.value == reached <= target + 1e-12
    candidates = np.concatenate([positive, negative, [np.inf]])
    allowed = [t for t in candidates if np.mean(negative >= t) <= target + 1e-12]
    assert point.tpr.value == max(np.mean(positive >= t) for t in allowed)


@given(labelled_scores(), st.floats(0.01, 0.99))
@settings(max_examples=200, deadline=None)
def test_tpr_at_fpr_is_the_highest_point_of_sklearns_curve_within_the_rate(
    data: tuple[np.ndarray, np.ndarray], target: float
) -> None:
    labels, scores = data
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    found = metrics.tpr_at_fpr(scores[labels == 1], scores[labels == 0], target)
    assert found.tpr.value == pytest.approx(tpr[fpr <= target + 1e-12].max())


def test_a_rate_with_fewer_than_ten_false_positives_is_not_measurable() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(2, 1, 1000), rng.normal(0, 1, 1000)
    assert metrics.tpr_at_fpr(positive, negative, 0.01).measurable
    assert not metrics.tpr_at_fpr(positive, negative, 0.009).measurable
    assert metrics.tpr_at_fpr(positive, negative, 0.01).fpr.successes == 10


def test_tied_negatives_do_not_collapse_the_curve_to_one_count() -> None:
    """The old evaluator kept the first of ties: TPR at FPR 1e-4 became one over the number of positives."""
    positive = np.concatenate([np.full(900, 5.0), np.zeros(100)])
    negative = np.concatenate([np.full(3, 5.0), np.zeros(9997)])
    assert metrics.tpr_at_fpr(positive, negative, 1e-3).tpr.value == 0.9
    assert metrics.tpr_at_fpr(positive, negative, 1e-4).tpr.value == 0.0


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=40),
    st.lists(st.integers(0, 20), min_size=1, max_size=40),
    st.floats(0.05, 1.0),
)
@settings(max_examples=200, deadline=None)
def test_precision_at_recall_and_recall_at_precision_by_exhaustion(pos: list[int], neg: list[int], goal: float) -> None:
    positive, negative = np.array(pos, dtype=float), np.array(neg, dtype=float)
    thresholds = np.unique(np.concatenate([positive, negative]))

    def precision(t: float) -> float:
        return np.sum(positive >= t) / (np.sum(positive >= t) + np.sum(negative >= t))

    point = metrics.precision_at_recall(positive, negative, goal)
    assert point.threshold == max(t for t in thresholds if np.mean(positive >= t) >= goal - 1e-9)
    assert point.precision.value == precision(point.threshold)

    best = metrics.recall_at_precision(positive, negative, goal)
    good = [np.mean(positive >= t) for t in thresholds if precision(t) >= goal - 1e-12 and np.any(positive >= t)]
    assert (best is None) == (not good)
    if best is not None:
        assert best.tpr.value == max(good)
        assert best.precision.value >= goal - 1e-12


def test_confusion_and_accuracy_count_every_object_once() -> None:
    positive, negative = [0.9, 0.5, 0.1], [0.5, 0.2]
    counts = metrics.confusion(positive, negative, 0.5)
    assert counts == metrics.Confusion(true_positives=2, false_positives=1, true_negatives=1, false_negatives=1)
    assert metrics.accuracy(positive, negative, 0.5).value == 3 / 5
    assert metrics.accuracy(positive, negative, 0.5).trials == 5


def test_recall_of_20_in_50_anchors_is_between_26_and_55_percent() -> None:
    interval = metrics.rate(20, 50).interval
    assert (round(interval.low, 2), round(interval.high, 2)) == (0.26, 0.55)


def test_a_rate_of_nothing_is_not_a_number_and_its_interval_everything() -> None:
    nothing = metrics.rate(0, 0)
    assert np.isnan(nothing.value)
    assert not nothing.measured
    assert (nothing.interval.low, nothing.interval.high) == (0, 1)
