"""Whether a finder is as good in one part of the sky as in another: AUC by region, and without each region."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dark_halo_scope.evaluation.finder_images import FinderImages
from dark_halo_scope.evaluation.finder_rates import auc_entry
from dark_halo_scope.evaluation.intervals import FloatArray, Interval
from dark_halo_scope.evaluation.number_entry import Entry, nothing_entry, number_entry
from dark_halo_scope.evaluation.validation_config import ValidationSettings

_CELL_NSIDE = 128
#: A jackknife over fewer regions says nothing of their spread.
_MIN_REGIONS = 5


def region_of(cell: NDArray[np.int64], nside: int) -> NDArray[np.int64]:
    """(N,) cell of `nside` that holds each nested cell of nside 128; -1 stays."""
    shift = 2 * int(np.log2(_CELL_NSIDE // nside))
    return np.where(cell < 0, -1, cell >> shift)


def measure_regions(test: FinderImages, settings: ValidationSettings) -> dict[str, Any]:
    """AUC over all regions with an interval from leaving each out, and what each region says by itself.

    Returns:
        counts; auc (interval by the jackknife over regions, which holds where images of a region are alike); range
        (lowest and highest AUC without a region); regions, those first without which the AUC changes most: `region`,
        `positives`, `negatives`, `auc`, `without`.
    """
    region = region_of(test.cell, settings.region_nside)
    names, place = np.unique(region, return_inverse=True)
    counts = {"nside": settings.region_nside, "regions": len(names), "unknown": int(np.sum(region < 0))}
    total = auc_entry(test.logit[test.positive], test.logit[~test.positive], settings.confidence)
    if total["value"] is None:
        return {"counts": counts, "auc": total, "range": None, "regions": []}
    without = leave_one_out(test.logit, test.positive, place, len(names))
    known = np.flatnonzero(np.isfinite(without))
    order = known[np.argsort(-np.abs(without[known] - total["value"]), kind="stable")]
    return {
        "counts": counts,
        "auc": _jackknife(total["value"], without[known], len(test), settings.confidence),
        "range": [float(without[known].min()), float(without[known].max())] if len(known) else None,
        "regions": [
            _region(test, place == i, int(names[i]), float(without[i]), settings)
            for i in order[: settings.regions_named]
        ],
    }


def leave_one_out(
    logit: FloatArray, positive: NDArray[np.bool_], place: NDArray[np.integer], regions: int
) -> FloatArray:
    """(R,) AUC without the images of each region; NaN where a class is missing then.

    Comparisons that a region's images take part in are taken off the whole: one sort, however many regions.

    Args:
        logit, positive: (N,).
        place: (N,) number of the region, below `regions`.
        regions: R.
    """
    won_against = _wins(logit, positive)
    total = float(won_against[positive].sum())
    p_region = np.bincount(place[positive], minlength=regions)
    n_region = np.bincount(place[~positive], minlength=regions)
    of_positives = np.bincount(place[positive], won_against[positive], minlength=regions)
    of_negatives = np.bincount(place[~positive], won_against[~positive], minlength=regions)
    inside = np.zeros(regions)
    for i in np.flatnonzero((p_region > 0) & (n_region > 0)):
        here = place == i
        inside[i] = _wins(logit[here], positive[here])[positive[here]].sum()
    pairs = (positive.sum() - p_region) * ((~positive).sum() - n_region)
    left = total - of_positives - of_negatives + inside
    return np.divide(left, pairs, out=np.full(regions, np.nan), where=pairs > 0)


def _wins(logit: FloatArray, positive: NDArray[np.bool_]) -> FloatArray:
    """(N,) comparisons with the other class that positives win, for either partner, a tie one half."""
    found = np.empty(len(logit))
    every = stats.rankdata(logit)
    found[positive] = every[positive] - stats.rankdata(logit[positive])
    below = every[~positive] - stats.rankdata(logit[~positive])
    found[~positive] = positive.sum() - below
    return found


def _jackknife(value: float, without: FloatArray, n: int, confidence: float) -> Entry:
    groups = len(without)
    if groups < _MIN_REGIONS:
        return nothing_entry(f"{groups} regions are too few for their spread, {_MIN_REGIONS} are needed", n)
    variance = (groups - 1) / groups * float(np.sum((without - without.mean()) ** 2))
    half = float(stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(variance))
    return number_entry(value, n, Interval(max(0.0, value - half), min(1.0, value + half)))


def _region(
    test: FinderImages, inside: NDArray[np.bool_], name: int, without: float, settings: ValidationSettings
) -> dict[str, Any]:
    positive, negative = test.logit[inside & test.positive], test.logit[inside & ~test.positive]
    return {
        "region": name,
        "positives": len(positive),
        "negatives": len(negative),
        "auc": auc_entry(positive, negative, settings.confidence, settings.min_stratum),
        "without": without,
    }
