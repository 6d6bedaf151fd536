"""Intervals cover what they promise, and nulls are what meaningless labels give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from dark_halo_scope.evaluation import intervals


@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from([0.68, 0.9, 0.95, 0.99]))
@settings(max_examples=200, deadline=None)
def test_clopper_pearson_equals_the_exact_binomial_test(k: int, n: int, confidence: float) -> None:
    k = min(k, n)
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    low, high = intervals.clopper_pearson(k, n, confidence)
    assert float(low) == pytest.approx(expected.low, abs=1e-10)
    assert float(high) == pytest.approx(expected.high, abs=1e-10)


def test_clopper_pearson_is_vectorised_and_covers_everything_without_trials() -> None:
    low, high = intervals.clopper_pearson([0, 5, 10, 0], [10, 10, 10, 0])
    assert low.shape == high.shape == (4,)
    assert low[0] == 0
    assert high[2] == 1
    assert (low[3], high[3]) == (0, 1)


def test_clopper_pearson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="between 0 and trials"):
        intervals.clopper_pearson(3, 2)


def brute_force_delong(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """DeLong's variance from the full kernel matrix."""
    kernel = (positive[:, None] > negative).astype(float) + 0.5 * (positive[:, None] == negative)
    v10, v01 = kernel.mean(axis=1), kernel.mean(axis=0)
    return kernel.mean(), np.sqrt(v10.var(ddof=1) / len(positive) + v01.var(ddof=1) / len(negative))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30))
@settings(max_examples=100, deadline=None)
def test_delong_equals_the_definition_with_ties(seed: int, m: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(1, 7, m).astype(float), rng.integers(0, 6, n).astype(float)
    auc, interval = intervals.delong(positive, negative)
    expected, sigma = brute_force_delong(positive, negative)
    assert auc == pytest.approx(expected)
    assert interval.low == pytest.approx(max(0, expected - 1.959964 * sigma), abs=1e-6)
    assert interval.high == pytest.approx(min(1, expected + 1.959964 * sigma), abs=1e-6)


def test_delong_covers_the_true_auc() -> None:
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    covered = 0
    for _ in range(400):
        _, interval = intervals.delong(rng.normal(1, 1, 80), rng.normal(0, 1, 120))
        covered += interval.low <= truth <= interval.high
    assert stats.binomtest(covered, 400, 0.95).pvalue > 1e-3


@given(st.integers(0, 10_000), st.integers(1, 25))
@settings(max_examples=100, deadline=None)
def test_weighted_auc_is_the_auc_of_the_repeated_sample(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 5, n).astype(float)
    positive, negative = rng.integers(0, 3, (4, n)).astype(float), rng.integers(0, 3, (4, n)).astype(float)
    values = intervals.weighted_auc(items, positive, negative)
    for value, p, q in zip(values, positive.astype(int), negative.astype(int), strict=True):
        if not p.sum() or not q.sum():
            assert np.isnan(value)
            continue
        scores = np.concatenate([np.repeat(items, p), np.repeat(items, q)])
        labels = np.concatenate([np.ones(p.sum()), np.zeros(q.sum())])
        assert value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_mean_and_difference_are_plain_means() -> None:
    a, b = np.array([1.0, 2.0, 6.0]), np.array([0.0, 1.0, 2.0])
    assert intervals.evaluate(intervals.weighted_mean, a, b) == 3.0
    assert intervals.evaluate(intervals.weighted_difference, a, b) == 2.0


def hosted_scores(rng: np.random.Generator, hosts: int, per_host: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs whose scores are nearly the same for all pairs of one host."""
    host = np.repeat(np.arange(hosts), per_host)
    first = rng.normal(1, 1, hosts)[host] + rng.normal(0, 0.05, len(host))
    second = rng.normal(0, 1, hosts)[host] + rng.normal(0, 0.05, len(host))
    return first, second, host


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [
        (intervals.weighted_auc, stats.norm.cdf(1 / np.sqrt(2))),
        (intervals.weighted_mean, 1.0),
        (intervals.weighted_difference, 1.0),
    ],
)
def test_the_host_bootstrap_covers_where_pairs_of_a_host_repeat_each_other(
    statistic: intervals.PairedStatistic, truth: float
) -> None:
    rng = np.random.default_rng(2)
    by_host = by_pair = 0
    for _ in range(200):
        first, second, host = hosted_scores(rng, hosts=60, per_host=4)
        interval = intervals.host_bootstrap(statistic, first, second, host, rng, 300)
        by_host += interval.low <= truth <= interval.high
        naive = intervals.host_bootstrap(statistic, first, second, np.arange(len(host)), rng, 300)
        by_pair += naive.low <= truth <= naive.high
    assert by_host >= 0.89 * 200
    assert by_pair < 0.80 * 200, "pairs of one host must not count as independent"


def test_the_null_of_meaningless_labels_has_uniform_p_values() -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(200):
        shared = rng.normal(size=40)
        first, second = shared + rng.normal(size=40), shared + rng.normal(size=40)
        null = intervals.permutation_null(intervals.weighted_auc, first, second, np.arange(40), rng, 199)
        p_values.append(null.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("statistic", [intervals.weighted_auc, intervals.weighted_difference])
def test_the_null_exchanges_all_pairs_of_a_host_together(statistic: intervals.PairedStatistic) -> None:
    """Four near copies of a pair are one observation: the null is twice as wide as that of independent pairs."""
    rng = np.random.default_rng(8)
    first, second, host = hosted_scores(rng, hosts=80, per_host=4)
    by_host = intervals.permutation_null(statistic, first, second, host, rng, 2000)
    by_pair = intervals.permutation_null(statistic, first, second, np.arange(len(host)), rng, 2000)
    assert (by_host.high - by_host.low) / (by_pair.high - by_pair.low) == pytest.approx(2, rel=0.15)


def test_the_null_is_centred_where_labels_say_nothing() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(3, 1, 300), rng.normal(0, 1, 300)
    host = np.arange(300)
    auc = intervals.permutation_null(intervals.weighted_auc, first, second, host, rng)
    mean = intervals.permutation_null(intervals.weighted_mean, first, second, host, rng)
    drop = intervals.permutation_null(intervals.weighted_difference, first, second, host, rng)
    assert auc.mean == pytest.approx(0.5, abs=0.01)
    assert mean.mean == pytest.approx((first.mean() + second.mean()) / 2, abs=0.05)
    assert drop.mean == pytest.approx(0, abs=0.05)
    assert max(auc.p_value, mean.p_value, drop.p_value) == pytest.approx(1 / 1001)


def test_resampling_is_reproducible_and_independent_of_memory_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    first, second, host = hosted_scores(rng, hosts=30, per_host=2)

    def interval() -> intervals.Interval:
        return intervals.host_bootstrap(
            intervals.weighted_auc, first, second, host, np.random.default_rng(6), replicates=50
        )

    whole = interval()
    assert interval() == whole
    monkeypatch.setattr(intervals, "_CHUNK_ELEMENTS", 700)
    assert interval() == whole


def test_empty_or_misaligned_scores_are_refused() -> None:
    rng = np.random.default_rng(7)
    for first, second, host in ([], [], []), ([1.0], [1.0, 2.0], [0]):
        with pytest.raises(ValueError, match="one length"):
            intervals.host_bootstrap(intervals.weighted_auc, first, second, host, rng)


def test_an_auc_within_groups_counts_comparisons_of_one_group_only() -> None:
    rng = np.random.default_rng(12)
    items, group = rng.normal(size=60), np.tile([0, 1, -1], 20)
    positive = np.repeat([1.0, 0.0], 30)
    weights = np.stack([positive, positive * rng.integers(0, 3, 60)])
    others = np.stack([1 - positive, (1 - positive) * rng.integers(0, 3, 60)])
    found = intervals.auc_within(group)(items, weights, others)
    for first, second, value in zip(weights, others, found, strict=True):
        won = pairs = 0.0
        for i, j in np.ndindex(60, 60):
            if group[i] == group[j] >= 0:
                pairs += first[i] * second[j]
                won += first[i] * second[j] * ((items[i] > items[j]) + 0.5 * (items[i] == items[j]))
        assert value == pytest.approx(won / pairs)
    np.testing.assert_array_equal(
        intervals.auc_within(np.zeros(60, int))(items, weights, others), intervals.weighted_auc(items, weights, others)
    )
    assert np.isnan(intervals.auc_within(np.where(positive, 0, 1))(items, weights, others)).all()
