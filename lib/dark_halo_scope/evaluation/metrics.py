"""What a classifier's scores say, each rate with its exact binomial interval.

A score at or above the threshold is a detection. Labels are 1 for lenses and 0 for the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.evaluation.intervals import FloatArray, Interval, clopper_pearson, weighted_auc

#: A false positive rate is measurable when at least this many negatives lie above its threshold.
MIN_FALSE_POSITIVES = 10


@dataclass(frozen=True)
class Rate:
    """A binomial rate: value = successes / trials, with its Clopper-Pearson interval; NaN without trials."""

    value: float
    successes: int
    trials: int
    interval: Interval

    @property
    def measured(self) -> bool:
        """Whether there was anything to count."""
        return self.trials > 0


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it costs and yields there.

    `measurable` is false where too few negatives pass the threshold to say what the false positive rate is.
    """

    threshold: float
    tpr: Rate
    fpr: Rate
    precision: Rate
    measurable: bool


@dataclass(frozen=True)
class Confusion:
    """Counts at a threshold."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


@dataclass(frozen=True)
class PrecisionRecallArea:
    """Average precision, which means nothing without the prevalence it was measured at."""

    value: float
    prevalence: float


def rate(successes: int, trials: int, confidence: float = 0.95) -> Rate:
    """A rate with its exact interval."""
    low, high = clopper_pearson(successes, trials, confidence)
    value = successes / trials if trials else float("nan")
    return Rate(value, int(successes), int(trials), Interval(float(low), float(high)))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Receiver operating characteristic with one point per distinct score, from (0, 0) to (1, 1).

    Tied scores cannot be told apart by any threshold, so they enter together.

    Args:
        labels: 0 or 1, (M,).
        scores: finite, (M,).

    Returns:
        False positive rate, true positive rate and threshold, each (K + 1,), thresholds decreasing from infinity.

    Raises:
        ValueError: if a class is absent, a label is neither 0 nor 1, or a score is not finite.
    """
    y, s = _checked(labels, scores)
    order = np.argsort(-s, kind="stable")
    ranked = s[order]
    last_of_tie = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    true_positives = np.cumsum(y[order])[last_of_tie]
    false_positives = last_of_tie + 1 - true_positives
    return (
        np.concatenate([[0.0], false_positives / false_positives[-1]]),
        np.concatenate([[0.0], true_positives / true_positives[-1]]),
        np.concatenate([[np.inf], ranked[last_of_tie]]),
    )


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, a tie counting one half."""
    y, s = _checked(labels, scores)
    return float(weighted_auc(s, y[None].astype(float), 1.0 - y[None])[0])


def average_precision(labels: ArrayLike, scores: ArrayLike) -> PrecisionRecallArea:
    """Average precision, sum over thresholds of (R_k - R_(k-1)) P_k, with the prevalence."""
    y, _ = _checked(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    steps = np.diff(np.concatenate([[0.0], recall]))
    return PrecisionRecallArea(float(np.sum(steps * precision)), float(y.mean()))


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and threshold at every distinct score, thresholds decreasing, each (K,)."""
    y, s = _checked(labels, scores)
    order = np.argsort(-s, kind="stable")
    ranked = s[order]
    last_of_tie = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    true_positives = np.cumsum(y[order])[last_of_tie]
    return true_positives / (last_of_tie + 1), true_positives / true_positives[-1], ranked[last_of_tie]


def at_threshold(
    positive: ArrayLike, negative: ArrayLike, threshold: float, confidence: float = 0.95
) -> OperatingPoint:
    """Rates when scores at or above `threshold` are detections."""
    pos, neg = _classes(positive, negative)
    hits, alarms = int(np.sum(pos >= threshold)), int(np.sum(neg >= threshold))
    return OperatingPoint(
        float(threshold),
        rate(hits, len(pos), confidence),
        rate(alarms, len(neg), confidence),
        rate(hits, hits + alarms, confidence),
        alarms >= MIN_FALSE_POSITIVES,
    )


def tpr_at_fpr(positive: ArrayLike, negative: ArrayLike, fpr: float, confidence: float = 0.95) -> OperatingPoint:
    """Completeness at a false positive rate whose threshold comes from the negatives alone.

    The threshold is the lowest that lets through at most floor(fpr * N) negatives; negatives tied at it stay out, all
    of them, so the rate reached is never above the one asked for.

    Args:
        positive: scores of positives, (P,).
        negative: scores of negatives, (N,).
        fpr: rate asked for, in (0, 1).
        confidence: of both intervals.

    Returns:
        The operating point; `measurable` is false when fewer than MIN_FALSE_POSITIVES negatives pass.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, not at {fpr}")
    _, neg = _classes(positive, negative)
    # The tolerance keeps 0.01 * 300 at 3 where floating point says 2.9999999999999996.
    allowed = int(np.floor(fpr * len(neg) + 1e-9))
    first_kept_out = np.sort(neg)[::-1][allowed]
    return at_threshold(positive, negative, float(np.nextafter(first_kept_out, np.inf)), confidence)


def precision_at_recall(
    positive: ArrayLike, negative: ArrayLike, recall: float, confidence: float = 0.95
) -> OperatingPoint:
    """The highest threshold that reaches `recall`, and the precision there."""
    if not 0 < recall <= 1:
        raise ValueError(f"a recall lies between 0 and 1, not at {recall}")
    pos, _ = _classes(positive, negative)
    needed = max(1, int(np.ceil(recall * len(pos) - 1e-9)))
    return at_threshold(positive, negative, float(np.sort(pos)[::-1][needed - 1]), confidence)


def recall_at_precision(
    positive: ArrayLike, negative: ArrayLike, precision: float, confidence: float = 0.95
) -> OperatingPoint | None:
    """The threshold of highest recall among those that reach `precision`; None where none does."""
    if not 0 < precision <= 1:
        raise ValueError(f"a precision lies between 0 and 1, not at {precision}")
    pos, neg = _classes(positive, negative)
    labels = np.concatenate([np.ones(len(pos), dtype=int), np.zeros(len(neg), dtype=int)])
    reached, _, thresholds = precision_recall_curve(labels, np.concatenate([pos, neg]))
    good = np.flatnonzero((reached >= precision - 1e-12) & (reached > 0))
    if not len(good):
        return None
    return at_threshold(pos, neg, float(thresholds[good[-1]]), confidence)


def confusion(positive: ArrayLike, negative: ArrayLike, threshold: float) -> Confusion:
    """Counts when scores at or above `threshold` are detections."""
    point = at_threshold(positive, negative, threshold)
    return Confusion(
        point.tpr.successes,
        point.fpr.successes,
        point.fpr.trials - point.fpr.successes,
        point.tpr.trials - point.tpr.successes,
    )


def accuracy(positive: ArrayLike, negative: ArrayLike, threshold: float, confidence: float = 0.95) -> Rate:
    """Share of right answers at `threshold`."""
    counts = confusion(positive, negative, threshold)
    right = counts.true_positives + counts.true_negatives
    return rate(right, right + counts.false_positives + counts.false_negatives, confidence)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], FloatArray]:
    y, s = np.asarray(labels), np.asarray(scores, dtype=float)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError("labels and scores must be one-dimensional and of one length")
    if not np.all((y == 0) | (y == 1)):
        raise ValueError("labels must be 0 or 1")
    if not np.all(np.isfinite(s)):
        raise ValueError("scores must be finite")
    if not (0 < y.sum() < len(y)):
        raise ValueError("both classes are needed")
    return y.astype(np.int64), s


def _classes(positive: ArrayLike, negative: ArrayLike) -> tuple[FloatArray, FloatArray]:
    pos, neg = np.asarray(positive, dtype=float), np.asarray(negative, dtype=float)
    if not len(pos) or not len(neg):
        raise ValueError("both classes are needed")
    if not (np.all(np.isfinite(pos)) and np.all(np.isfinite(neg))):
        raise ValueError("scores must be finite")
    return pos, neg
