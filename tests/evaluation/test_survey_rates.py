"""Rates of a survey from a sample drawn with unequal probabilities."""

import numpy as np
import pytest
from scipy import stats

from dark_halo_scope.evaluation.survey_rates import weighted_rate, weighted_threshold


def test_equal_weights_give_the_exact_poisson_interval() -> None:
    passed = np.arange(1000) < 7
    entry = weighted_rate(passed, np.full(1000, 3.0))
    assert entry["value"] == pytest.approx(0.007)
    assert entry["interval"][0] == pytest.approx(stats.chi2.ppf(0.025, 14) / 2 / 1000)
    assert entry["interval"][1] == pytest.approx(stats.chi2.ppf(0.975, 16) / 2 / 1000)
    assert entry["n_effective"] == pytest.approx(1000)


def test_nothing_that_passes_still_has_an_upper_bound() -> None:
    entry = weighted_rate(np.zeros(100, bool), np.ones(100))
    assert entry["value"] == 0
    assert entry["interval"] == [0.0, pytest.approx(-np.log(0.025) / 100)]
    assert weighted_rate(np.zeros(0, bool), np.zeros(0))["value"] is None


def test_intervals_hold_the_true_rate_as_often_as_they_promise() -> None:
    rng = np.random.default_rng(3)
    kind = rng.random(2000) < 0.3
    probability, rate = np.where(kind, 0.5, 0.05), np.where(kind, 0.08, 0.004)
    weight = 1 / probability
    true = np.average(rate, weights=weight)
    held = 0
    for _ in range(400):
        low, high = weighted_rate(rng.random(2000) < rate, weight)["interval"]
        held += low <= true <= high
    assert held / 400 > 0.94


def test_the_threshold_lets_through_no_more_than_the_weighted_share() -> None:
    score = np.array([5.0, 4.0, 4.0, 3.0, 2.0, 1.0])
    weight = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 3.0])
    # 3 of 10: the first and both tied ones.
    threshold, passing = weighted_threshold(score, weight, 0.3)
    assert (3 < threshold <= 4, passing) == (True, 3)
    # 2 of 10 would part the tied ones: they stay out together.
    threshold, passing = weighted_threshold(score, weight, 0.2)
    assert (4 < threshold <= 5, passing) == (True, 1)
    assert weighted_threshold(score, weight, 0.05)[1] == 0
