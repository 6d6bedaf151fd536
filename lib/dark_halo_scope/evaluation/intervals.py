"""Uncertainties: exact binomial intervals, DeLong, bootstrap over hosts, and label-permutation nulls.

The bootstrap and the null take a *paired statistic*: a function of two aligned score arrays and of how often each
entry counts on either side, vectorised over replicates. One form serves AUCs, means and mean differences alike.

    statistic(items_M, weights_first_BM, weights_second_BM) -> (B,)

`items` holds the first sample's scores, then the second's; weights say how often each item counts in which sample.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.floating]
PairedStatistic = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

#: Replicates times items held in memory at once (float64, a few such arrays): about 100 MB.
_CHUNK_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A value's lower and upper bound."""

    low: float
    high: float


@dataclass(frozen=True)
class Null:
    """What a statistic does when labels mean nothing: mean, central range, and two-sided p of the observed value."""

    mean: float
    low: float
    high: float
    p_value: float


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Exact binomial interval (Clopper & Pearson 1934, Biometrika 26, 404), as quantiles of beta distributions.

    Args:
        successes: counts, any shape.
        trials: counts, broadcast against `successes`; 0 trials give [0, 1].
        confidence: coverage that the interval has at least.

    Returns:
        Lower and upper bounds, of the broadcast shape.

    Raises:
        ValueError: if a count is negative or there are more successes than trials.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(trials, dtype=float))
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("successes must lie between 0 and trials")
    tail = (1 - confidence) / 2
    low = np.where(k > 0, stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, stats.beta.ppf(1 - tail, k + 1, np.maximum(n - k, 1)), 1.0)
    return low, high


def delong(positive: ArrayLike, negative: ArrayLike, confidence: float = 0.95) -> tuple[float, Interval]:
    """AUC and its interval for independent samples (DeLong et al. 1988; fast form of Sun & Xu 2014, eqs 9-12).

    The variance of a perfect separation is zero, so its interval is a point: use it with real overlaps only.

    Args:
        positive: scores of positives, (P,), P >= 2.
        negative: scores of negatives, (N,), N >= 2.
        confidence: coverage.

    Returns:
        The AUC and an interval clipped to [0, 1].

    Raises:
        ValueError: if a class has fewer than two members.
    """
    pos, neg = np.asarray(positive, dtype=float), np.asarray(negative, dtype=float)
    m, n = len(pos), len(neg)
    if m < 2 or n < 2:
        raise ValueError("DeLong's variance needs at least two members per class")
    ranks = stats.rankdata(np.concatenate([pos, neg]))
    below_pos = (ranks[:m] - stats.rankdata(pos)) / n  # placement of each positive among the negatives
    above_neg = 1 - (ranks[m:] - stats.rankdata(neg)) / m
    auc = float(below_pos.mean())
    variance = below_pos.var(ddof=1) / m + above_neg.var(ddof=1) / n
    half = stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(variance)
    return auc, Interval(max(0.0, float(auc - half)), min(1.0, float(auc + half)))


def weighted_auc(items: FloatArray, positive_weights: FloatArray, negative_weights: FloatArray) -> FloatArray:
    """AUC of many weightings of the same scores; a tie counts one half. A paired statistic.

    Args:
        items: scores, (M,).
        positive_weights: how often each item counts as a positive, (B, M).
        negative_weights: how often each item counts as a negative, (B, M).

    Returns:
        (B,) AUCs; NaN where a replicate has no positive or no negative.
    """
    won, pairs = _won(items, positive_weights, negative_weights)
    return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)


def auc_within(groups: ArrayLike) -> PairedStatistic:
    """The AUC whose positives are compared with negatives of their own group only. A paired statistic.

    Comparisons won and comparisons made are summed over groups. Scores of folds come from different models, and folds
    have different shares of the classes: pooled, neither scores nor ranks can be compared.

    Args:
        groups: which group each item is of, (M,), for the first sample's items, then the second's; items of a group
            below 0 are compared with none.
    """
    group = np.asarray(groups)
    members = [np.flatnonzero(group == name) for name in np.unique(group[group >= 0])]

    def statistic(items: FloatArray, positive_weights: FloatArray, negative_weights: FloatArray) -> FloatArray:
        won, pairs = np.zeros((2, len(positive_weights)))
        for index in members:
            here = _won(items[index], positive_weights[:, index], negative_weights[:, index])
            won, pairs = won + here[0], pairs + here[1]
        return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)

    return statistic


def _won(
    items: FloatArray, positive_weights: FloatArray, negative_weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(B,), (B,) comparisons of a positive with a negative that it wins, a tie one half, and all that there are."""
    order = np.argsort(items, kind="stable")
    ranked = items[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    positive = np.add.reduceat(positive_weights[:, order], starts, axis=1)
    negative = np.add.reduceat(negative_weights[:, order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - 0.5 * negative
    return (positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1)


def weighted_mean(items: FloatArray, first_weights: FloatArray, second_weights: FloatArray) -> FloatArray:
    """Mean of the first sample; the second only feeds its permutation null. A paired statistic."""
    return first_weights @ items / first_weights.sum(axis=1)


def weighted_difference(items: FloatArray, first_weights: FloatArray, second_weights: FloatArray) -> FloatArray:
    """Mean of the first sample less that of the second. A paired statistic."""
    return weighted_mean(items, first_weights, second_weights) - weighted_mean(items, second_weights, first_weights)


def evaluate(statistic: PairedStatistic, first: ArrayLike, second: ArrayLike) -> float:
    """The statistic of two aligned samples, each (N,), every entry counted once."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    ones = np.ones((1, len(a)))
    return float(_apply(statistic, a, b, ones, np.zeros_like(ones))[0])


def host_bootstrap(
    statistic: PairedStatistic,
    first: ArrayLike,
    second: ArrayLike,
    hosts: ArrayLike,
    rng: np.random.Generator,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval from resampling hosts, both members of every pair of a host together.

    Pairs of one host share its pixels: resampling them one by one would promise too much precision.

    Args:
        statistic: a paired statistic.
        first: scores, (N,).
        second: scores aligned with `first`, (N,).
        hosts: which host each pair is of, (N,), any sortable labels.
        rng: source of randomness.
        replicates: number of resamples.
        confidence: coverage.
    """
    a, b, host = _aligned(first, second, hosts)
    n_hosts = int(host.max()) + 1
    values = np.concatenate(
        [
            _apply(statistic, a, b, _multiplicities(rng, count, n_hosts)[:, host], None)
            for count in _chunks(replicates, 2 * len(a))
        ]
    )
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def two_sample_bootstrap(
    statistic: PairedStatistic,
    first: ArrayLike,
    second: ArrayLike,
    hosts: tuple[ArrayLike, ArrayLike],
    rng: np.random.Generator,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval from resampling the hosts of two samples that are no pairs, each by itself.

    A resample that has nothing to compare does not count.

    Args:
        statistic: a paired statistic.
        first: scores, (N,).
        second: scores, (M,).
        hosts: which host each score is of, (N,) and (M,).
        rng, replicates, confidence: as in `host_bootstrap`.
    """
    a, _, host_a = _aligned(first, first, hosts[0])
    b, _, host_b = _aligned(second, second, hosts[1])
    items = np.concatenate([a, b])
    values = []
    for count in _chunks(replicates, len(items)):
        weight_a = _multiplicities(rng, count, int(host_a.max()) + 1)[:, host_a]
        weight_b = _multiplicities(rng, count, int(host_b.max()) + 1)[:, host_b]
        nothing_a, nothing_b = np.zeros_like(weight_a), np.zeros_like(weight_b)
        values.append(statistic(items, np.hstack([weight_a, nothing_b]), np.hstack([nothing_a, weight_b])))
    low, high = np.nanquantile(np.concatenate(values), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def permutation_null(
    statistic: PairedStatistic,
    first: ArrayLike,
    second: ArrayLike,
    hosts: ArrayLike,
    rng: np.random.Generator,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> Null:
    """Distribution of the statistic when the two labels are exchanged at random, host by host.

    Labels are exchanged within pairs and for all pairs of a host at once, so that the null has the same hosts and the
    same dependence as the data.

    Args:
        statistic: a paired statistic.
        first: scores, (N,).
        second: scores aligned with `first`, (N,).
        hosts: which host each pair is of, (N,), any sortable labels.
        rng: source of randomness.
        replicates: number of permutations.
        confidence: the central range reported.
    """
    a, b, host = _aligned(first, second, hosts)
    n_hosts = int(host.max()) + 1
    values = np.concatenate(
        [
            _swapped(statistic, a, b, rng.integers(0, 2, size=(count, n_hosts)).astype(float)[:, host])
            for count in _chunks(replicates, 2 * len(a))
        ]
    )
    centre = float(values.mean())
    observed = evaluate(statistic, a, b)
    # The tolerance makes permutations that equal the observation up to rounding count as such.
    extreme = np.abs(values - centre) >= abs(observed - centre) - 1e-12
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    p_value = (1 + int(extreme.sum())) / (1 + len(values))
    return Null(centre, float(low), float(high), float(p_value))


def _aligned(first: ArrayLike, second: ArrayLike, hosts: ArrayLike) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    host = np.unique(np.asarray(hosts), return_inverse=True)[1]
    if not (a.shape == b.shape == host.shape and a.ndim == 1 and len(a)):
        raise ValueError("scores and hosts must be non-empty arrays of one length")
    return a, b, host


def _chunks(replicates: int, items: int) -> list[int]:
    size = max(1, _CHUNK_ELEMENTS // items)
    return [min(size, replicates - start) for start in range(0, replicates, size)]


def _multiplicities(rng: np.random.Generator, replicates: int, hosts: int) -> FloatArray:
    """How often each host was drawn when as many hosts as there are were drawn with replacement, (B, hosts)."""
    drawn = rng.integers(0, hosts, size=(replicates, hosts)) + hosts * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=replicates * hosts).reshape(replicates, hosts).astype(float)


def _apply(
    statistic: PairedStatistic, a: FloatArray, b: FloatArray, weights: FloatArray, zeros: FloatArray | None
) -> FloatArray:
    nothing = np.zeros_like(weights) if zeros is None else zeros
    items = np.concatenate([a, b])
    return statistic(items, np.hstack([weights, nothing]), np.hstack([nothing, weights]))


def _swapped(statistic: PairedStatistic, a: FloatArray, b: FloatArray, swap: FloatArray) -> FloatArray:
    items = np.concatenate([a, b])
    return statistic(items, np.hstack([1 - swap, swap]), np.hstack([swap, 1 - swap]))
