"""Rates of a survey from a sample that was drawn from it with unequal probabilities: weights are their inverse."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dark_halo_scope.evaluation.intervals import FloatArray, Interval
from dark_halo_scope.evaluation.metrics import MIN_FALSE_POSITIVES
from dark_halo_scope.evaluation.number_entry import Entry, nothing_entry, number_entry


def weighted_rate(passed: NDArray[np.bool_], weight: FloatArray, confidence: float = 0.95) -> Entry:
    """Weighted share of images that pass, with the interval of Fay & Feuer (1997, Statistics in Medicine 16, 791).

    The interval is that of a weighted sum of Poisson counts, exact where weights are equal, and it also holds where
    nothing passes: what a resampling of the images cannot say.

    Args:
        passed: (N,).
        weight: of each image, positive, (N,).
        confidence: of the interval.

    Returns:
        The entry of a number, with `k` images that pass and `n_effective`, Kish's: how many images of equal weight
        would say as much.
    """
    n = len(weight)
    if not n:
        return {**nothing_entry("there was nothing to count"), "k": 0, "n_effective": 0.0}
    share = weight / weight.sum()
    value, variance = float(share[passed].sum()), float((share[passed] ** 2).sum())
    largest = float(share.max())
    tail = (1 - confidence) / 2
    low = 0.0
    if value > 0:
        low = variance / (2 * value) * float(stats.chi2.ppf(tail, 2 * value**2 / variance))
    above, spread = value + largest, variance + largest**2
    high = spread / (2 * above) * float(stats.chi2.ppf(1 - tail, 2 * above**2 / spread))
    return {
        **number_entry(value, n, Interval(min(low, value), min(1.0, max(high, value)))),
        "k": int(passed.sum()),
        "n_effective": float(1 / (share**2).sum()),
    }


def weighted_threshold(score: FloatArray, weight: FloatArray, rate: float) -> tuple[float, int]:
    """The lowest threshold that lets through at most a weighted share of the images, tied ones together.

    Args:
        score: (N,), N > 0.
        weight: positive, (N,).
        rate: in (0, 1).

    Returns:
        The threshold and how many images pass it: fewer than `MIN_FALSE_POSITIVES` measure no rate.
    """
    order = np.argsort(-score, kind="stable")
    ranked, running = score[order], np.cumsum(weight[order])
    allowed = rate * running[-1]
    # Of tied images, either all pass or none does.
    last = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    passing = last[running[last] <= allowed * (1 + 1e-9)]
    kept_out = int(passing[-1]) + 1 if len(passing) else 0
    threshold = float(np.nextafter(ranked[min(kept_out, len(ranked) - 1)], np.inf))
    return threshold, int(np.sum(score >= threshold))


def measurable(passing: int) -> bool:
    """Whether a rate rests on enough images."""
    return passing >= MIN_FALSE_POSITIVES
