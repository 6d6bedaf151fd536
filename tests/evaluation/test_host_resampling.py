"""Counting by groups and levels says what resampling hosts one by one says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dark_halo_scope.evaluation import host_resampling as resampling
from dark_halo_scope.evaluation import intervals, metrics


def resampled(
    positive: np.ndarray, negative: np.ndarray, hosts: tuple[np.ndarray, np.ndarray], replicates: int, seed: int = 0
) -> resampling.Resampled:
    """All replicates of two samples of scores."""
    rng = np.random.default_rng(seed)
    levels = resampling.choose_levels(np.sort(positive), np.sort(negative))
    group = resampling.host_groups(np.concatenate(hosts), rng)
    parts = ((positive, group[: len(positive)]), (negative, group[len(positive) :]))
    counts = [resampling.count(groups, levels.of(score), len(levels.edges)) for score, groups in parts]
    drawn = list(resampling.resamples(resampling.grouped(counts[0], counts[1], levels.exact), rng, replicates))
    columns = ("positive_BK", "negative_BK", "positives_above_BK", "negatives_above_BK")
    return resampling.Resampled(*(np.concatenate([getattr(d, name) for d in drawn]) for name in columns), levels.exact)


def weighted(
    positive: np.ndarray, negative: np.ndarray, times: tuple[np.ndarray, np.ndarray], exact: bool = True
) -> resampling.Resampled:
    """One replicate that has each score so many times."""
    levels = resampling.choose_levels(np.sort(positive), np.sort(negative))
    counts = [
        np.bincount(levels.of(score), count, len(levels.edges))[None].astype(float)
        for score, count in zip((positive, negative), times, strict=True)
    ]
    return resampling.Resampled(counts[0], counts[1], counts[0].cumsum(axis=1), counts[1].cumsum(axis=1), exact)


SCORES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=2, max_size=30)


@given(SCORES, SCORES, st.floats(0.02, 0.98))
@settings(max_examples=200, deadline=None)
def test_every_statistic_of_a_replicate_is_that_of_the_repeated_scores(
    first: list[tuple[int, int]], second: list[tuple[int, int]], target: float
) -> None:
    (positive, p_times), (negative, n_times) = (np.array(pairs, dtype=float).T for pairs in (first, second))
    p_times[0] = n_times[0] = 1
    sample = weighted(positive, negative, (p_times, n_times))
    pos, neg = np.repeat(positive, p_times.astype(int)), np.repeat(negative, n_times.astype(int))
    labels, scores = np.repeat([1, 0], [len(pos), len(neg)]), np.concatenate([pos, neg])
    assert resampling.auc(sample)[0] == pytest.approx(metrics.auc(labels, scores))
    assert resampling.average_precision(sample)[0] == pytest.approx(metrics.average_precision(labels, scores).value)
    assert resampling.tpr_at_fpr(sample, target)[0] == pytest.approx(metrics.tpr_at_fpr(pos, neg, target).tpr.value)
    point = metrics.precision_at_recall(pos, neg, target)
    assert resampling.fpr_at_tpr(sample, target)[0] == pytest.approx(point.fpr.value)
    assert resampling.precision_at_tpr(sample, target)[0] == pytest.approx(point.precision.value)
    reached = metrics.recall_at_precision(pos, neg, target)
    assert resampling.tpr_at_precision(sample, target)[0] == pytest.approx(0 if reached is None else reached.tpr.value)


def test_the_interval_of_an_auc_is_that_of_the_plain_host_bootstrap() -> None:
    rng = np.random.default_rng(1)
    hosts = np.repeat(np.arange(150), 3)
    shift = rng.normal(0, 1, 150)[hosts]
    positive, negative = shift + rng.normal(1.5, 1, 450), shift + rng.normal(0, 1, 450)
    sample = resampled(positive, negative, (hosts, hosts), 4000)
    assert sample.exact
    mine = resampling.percentile_interval(resampling.auc(sample), 0.95)
    theirs = intervals.host_bootstrap(intervals.weighted_auc, positive, negative, hosts, rng, 4000)
    assert mine is not None
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_random_groups_and_coarse_levels_keep_centre_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    hosts = np.repeat(np.arange(2500), 4)
    shift = rng.normal(0, 1, 2500)[hosts]
    positive, negative = shift[:2000] + rng.normal(2, 1, 2000), shift + rng.normal(0, 1, len(hosts))
    sides = (hosts[:2000], hosts)
    coarse = resampled(positive, negative, sides, 1000)
    assert not coarse.exact
    assert coarse.positive_BK.shape[1] < resampling.MAX_LEVELS
    monkeypatch.setattr(resampling, "MAX_GROUPS", 2500)
    monkeypatch.setattr(resampling, "MAX_LEVELS", 12_000)
    exact = resampled(positive, negative, sides, 1000, seed=1)
    assert exact.exact
    for statistic in (
        resampling.auc,
        lambda sample: resampling.tpr_at_fpr(sample, 0.01),
        lambda sample: resampling.fpr_at_tpr(sample, 0.9),
    ):
        a, b = statistic(coarse), statistic(exact)
        assert a.mean() == pytest.approx(b.mean(), abs=4 * b.std() / np.sqrt(500))
        assert a.std() == pytest.approx(b.std(), rel=0.15)


@pytest.mark.parametrize("hosts", [400, 5000])
def test_four_copies_of_an_image_say_no_more_than_one(hosts: int) -> None:
    """Below and above as many hosts as are put into groups: the spread is that of the hosts, not of the images."""
    rng = np.random.default_rng(4)
    hit = rng.random(hosts) < 0.3
    values = resampling.share(np.repeat(hit, 4), np.repeat(np.arange(hosts) + 7, 4), rng, 4000)
    assert values.mean() == pytest.approx(hit.mean(), abs=0.003)
    assert values.std() == pytest.approx(np.sqrt(hit.mean() * (1 - hit.mean()) / hosts), rel=0.08)


def test_scores_that_are_tied_share_a_level_and_no_score_is_below_the_lowest() -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.uniform(size=50_000), 4)
    levels = resampling.choose_levels(np.sort(scores[:5000]), np.sort(scores))
    assert not levels.exact
    level = levels.of(scores)
    assert level.min() >= 0
    assert level.max() < len(levels.edges)
    order = np.argsort(-scores, kind="stable")
    assert (np.diff(level[order]) >= 0).all()
    same = np.diff(scores[order]) == 0
    assert (np.diff(level[order])[same] == 0).all()


def test_a_replicate_without_a_class_has_no_value_and_does_not_count() -> None:
    nothing = weighted(np.array([1.0, 2.0]), np.array([1.5]), (np.zeros(2), np.ones(1)))
    assert np.isnan(resampling.auc(nothing)).all()
    assert np.isnan(resampling.average_precision(nothing)).all()
    assert resampling.percentile_interval(np.array([np.nan]), 0.95) is None
    found = resampling.percentile_interval(np.array([np.nan, 1.0, 1.0]), 0.95)
    assert found == intervals.Interval(1.0, 1.0)


def test_the_same_seed_gives_the_same_replicates_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    positive, negative, hosts = rng.normal(1, 1, 60), rng.normal(0, 1, 60), np.arange(60)
    whole = resampling.auc(resampled(positive, negative, (hosts, hosts), 40))
    monkeypatch.setattr(resampling, "_CHUNK_ELEMENTS", 500)
    np.testing.assert_array_equal(resampling.auc(resampled(positive, negative, (hosts, hosts), 40)), whole)
