"""Bootstrap over hosts that stays affordable for ten million scores.

Scores are counted once, by level and by group of hosts; a resample of the groups is then a product of matrices. Up to
`MAX_GROUPS` hosts each is its own group, and up to `MAX_LEVELS` distinct scores each is its own level: that is the host
bootstrap, exactly. Above, hosts are put into groups at random, which leaves the variance of a sum over hosts as it is
(the random groups of Wolter 2007, Introduction to Variance Estimation, chapter 2), and levels are as fine as half a
per cent of the negatives' rank, within which rates are interpolated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.evaluation.intervals import FloatArray, Interval

MAX_GROUPS = 1000
MAX_LEVELS = 8192
#: Ranks of neighbouring levels differ by this factor, once they differ by more than one.
_RANK_STEP = 1.005
_POSITIVE_LEVELS = 2000
#: Replicates times levels in memory at once, float64.
_CHUNK_ELEMENTS = 1_000_000


@dataclass(frozen=True)
class Levels:
    """Lower edges of score levels, increasing, (K,); `exact` where no level holds two distinct scores."""

    edges: FloatArray
    exact: bool

    def of(self, scores: FloatArray) -> NDArray[np.int32]:
        """(N,) level of each score, 0 for the highest scores; none may lie below the lowest edge."""
        return (len(self.edges) - np.searchsorted(self.edges, scores, side="right")).astype(np.int32)


@dataclass(frozen=True)
class GroupCounts:
    """How many images of a class each group of hosts has at each level, highest scores first, (G, K) float32."""

    positive_GK: NDArray[np.float32]
    negative_GK: NDArray[np.float32]
    exact: bool


@dataclass(frozen=True)
class Resampled:
    """Counts of B resamples at each level, highest scores first, (B, K), and their running sums."""

    positive_BK: FloatArray
    negative_BK: FloatArray
    positives_above_BK: FloatArray
    negatives_above_BK: FloatArray
    exact: bool


def choose_levels(positive: FloatArray, negative: FloatArray) -> Levels:
    """Levels for two sorted (increasing) samples of scores."""
    distinct = np.union1d(positive, negative)
    if len(distinct) <= MAX_LEVELS:
        return Levels(distinct, True)
    parts = [distinct[:1]]
    if len(negative):
        ranks = np.geomspace(1, len(negative), 2 + int(np.log(len(negative)) / np.log(_RANK_STEP)))
        parts.append(negative[len(negative) - np.unique(ranks.astype(np.int64))])
    if len(positive):
        parts.append(positive[np.linspace(0, len(positive) - 1, _POSITIVE_LEVELS).astype(np.int64)])
    return Levels(np.unique(np.concatenate(parts)), False)


def host_groups(host: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int32]:
    """(N,) group of each row's host: the host itself where there are few, one of MAX_GROUPS at random otherwise."""
    hosts = int(host.max()) + 1 if len(host) else 0
    if hosts <= MAX_GROUPS:
        return host.astype(np.int32)
    return (rng.permutation(hosts) % MAX_GROUPS).astype(np.int32)[host]


def count(
    group: NDArray[np.integer], level: NDArray[np.integer], levels: int, weights: FloatArray | None = None
) -> NDArray[np.float32]:
    """(MAX_GROUPS, K) number, or weight, of rows in each group at each of K levels."""
    flat = np.bincount(group.astype(np.int64) * levels + level, weights, minlength=MAX_GROUPS * levels)
    return flat.reshape(MAX_GROUPS, levels).astype(np.float32)


def grouped(positive_GK: NDArray[np.float32], negative_GK: NDArray[np.float32], exact: bool) -> GroupCounts:
    """Counts without groups and levels at which there is nothing."""
    groups = positive_GK.any(axis=1) | negative_GK.any(axis=1)
    levels = positive_GK.any(axis=0) | negative_GK.any(axis=0)
    return GroupCounts(positive_GK[groups][:, levels], negative_GK[groups][:, levels], exact)


def resamples(counts: GroupCounts, rng: np.random.Generator, replicates: int) -> Iterator[Resampled]:
    """Resamples of the groups, as many drawn with replacement as there are, some replicates at a time."""
    groups, levels = counts.positive_GK.shape
    size = max(1, _CHUNK_ELEMENTS // max(1, levels))
    for start in range(0, replicates, size):
        drawn = min(size, replicates - start)
        weights_BG = rng.multinomial(groups, np.full(groups, 1 / groups), size=drawn).astype(np.float32)
        positive, negative = ((weights_BG @ part).astype(float) for part in (counts.positive_GK, counts.negative_GK))
        yield Resampled(positive, negative, positive.cumsum(axis=1), negative.cumsum(axis=1), counts.exact)


def auc(sample: Resampled) -> FloatArray:
    """(B,) areas under the ROC curve, a tie counting one half; NaN where a class is absent."""
    beaten = sample.negatives_above_BK[:, -1:] - sample.negatives_above_BK + 0.5 * sample.negative_BK
    pairs = sample.positives_above_BK[:, -1] * sample.negatives_above_BK[:, -1]
    return _ratio((sample.positive_BK * beaten).sum(axis=1), pairs)


def average_precision(sample: Resampled) -> FloatArray:
    """(B,) average precisions; NaN where there is no positive."""
    precision = _ratio(sample.positives_above_BK, sample.positives_above_BK + sample.negatives_above_BK)
    total = (sample.positive_BK * np.nan_to_num(precision)).sum(axis=1)
    return _ratio(total, sample.positives_above_BK[:, -1])


def fpr_at_tpr(sample: Resampled, target: float) -> FloatArray:
    """(B,) false positive rates at the highest threshold that reaches the true positive rate `target`."""
    _, alarms = _at_tpr(sample, target)
    return _ratio(alarms, sample.negatives_above_BK[:, -1])


def precision_at_tpr(sample: Resampled, target: float) -> FloatArray:
    """(B,) precisions at the highest threshold that reaches the true positive rate `target`; NaN without positives."""
    hits, alarms = _at_tpr(sample, target)
    return _ratio(hits, hits + alarms)


def tpr_at_precision(sample: Resampled, target: float) -> FloatArray:
    """(B,) highest true positive rates at which the precision is `target` or more, 0 where it never is."""
    hits = sample.positives_above_BK
    precise = _ratio(hits, hits + sample.negatives_above_BK) >= target - 1e-12
    return _ratio(np.where(precise, hits, 0.0).max(axis=1), hits[:, -1])


def share(hit: NDArray[np.bool_], host: NDArray[np.integer], rng: np.random.Generator, replicates: int) -> FloatArray:
    """(B,) share of rows that are hits, when hosts are resampled.

    Args:
        hit: (N,).
        host: number of each row's host, (N,), N > 0.
        rng, replicates: of the resamples.
    """
    group = host_groups(np.unique(host, return_inverse=True)[1], rng)
    total, hits = np.bincount(group).astype(float), np.bincount(group, weights=hit)
    weights_BG = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), size=replicates).astype(float)
    return _ratio(weights_BG @ hits, weights_BG @ total)


def tpr_at_fpr(sample: Resampled, target: float) -> FloatArray:
    """(B,) true positive rates at the lowest threshold whose false positive rate is at most `target`."""
    alarms = sample.negatives_above_BK
    allowed = target * alarms[:, -1]
    passing = (alarms <= (allowed + 1e-9 * np.maximum(1, allowed))[:, None]).sum(axis=1)
    reached = _before(sample.positives_above_BK, passing)
    if not sample.exact:
        # `passing` is the level in which the rate is exceeded; there is one unless all levels pass.
        level = np.minimum(passing, alarms.shape[1] - 1)
        share = np.clip(_ratio(allowed - _before(alarms, passing), _at(sample.negative_BK, level)), 0, 1)
        reached = reached + np.where(passing < alarms.shape[1], share * _at(sample.positive_BK, level), 0)
    return _ratio(reached, sample.positives_above_BK[:, -1])


def percentile_interval(values: FloatArray, confidence: float) -> Interval | None:
    """Central range of the replicates that have a value; None where none has."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _at_tpr(sample: Resampled, target: float) -> tuple[FloatArray, FloatArray]:
    """(B,), (B,) true and false positives at the highest threshold that reaches the true positive rate `target`."""
    reached = sample.positives_above_BK
    wanted = target * reached[:, -1]
    short = reached < (wanted - 1e-9 * np.maximum(1, wanted))[:, None]
    level = np.minimum(short.sum(axis=1), reached.shape[1] - 1)
    part: FloatArray = np.ones(len(level))
    if not sample.exact:
        part = np.clip(_ratio(wanted - _before(reached, level), _at(sample.positive_BK, level)), 0, 1)
    hits = _before(reached, level) + part * _at(sample.positive_BK, level)
    return hits, _before(sample.negatives_above_BK, level) + part * _at(sample.negative_BK, level)


def _at(values_BK: FloatArray, level: NDArray[np.integer]) -> FloatArray:
    return values_BK[np.arange(len(values_BK)), level]


def _before(running_BK: FloatArray, level: NDArray[np.integer]) -> FloatArray:
    """(B,) running sum just before a level; 0 before the first."""
    return np.where(level > 0, _at(running_BK, np.maximum(level, 1) - 1), 0.0)


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) > 0)
