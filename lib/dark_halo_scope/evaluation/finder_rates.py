"""Recall, false positive rates and AUC of groups of real images, each number with its count and interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dark_halo_scope.evaluation import metrics
from dark_halo_scope.evaluation.anchors import CIRCULAR
from dark_halo_scope.evaluation.finder_images import FinderImages, Mask
from dark_halo_scope.evaluation.intervals import FloatArray, Interval, clopper_pearson, delong
from dark_halo_scope.evaluation.number_entry import Entry, nothing_entry, number_entry, rate_entry
from dark_halo_scope.evaluation.survey_rates import weighted_rate

#: Intended categories of the hard negatives (N2), all of which are reported.
CONFUSERS = ("ring_proxy", "edge_on_proxy", "blue_clumpy", "large_galaxy")

#: Threshold name -> raw logit; None where it could not be had.
Cuts = Mapping[str, float | None]


def auc_entry(positive: FloatArray, negative: FloatArray, confidence: float, minimum: int = 2) -> Entry:
    """AUC with DeLong's interval.

    DeLong's variance of a perfect separation is zero: there, the other bound is Clopper-Pearson's of the smaller
    class, all of which was on one side.
    """
    if min(len(positive), len(negative)) < minimum:
        why = f"{len(positive)} positives and {len(negative)} negatives, {minimum} of each are needed"
        return nothing_entry(why, len(positive) + len(negative))
    value, interval = delong(positive, negative, confidence)
    if value in (0, 1):
        n = min(len(positive), len(negative))
        low, high = clopper_pearson(int(value) * n, n, confidence)
        interval = Interval(float(low), float(high))
    return number_entry(value, len(positive) + len(negative), interval)


def lens_groups(images: FinderImages) -> dict[str, dict[str, Mask]]:
    """Groups of positives: scheme -> name -> (N,) mask.

    `overall` has `all` and `not_circular`, without lenses that machine learning found in these very images; `tier` A
    and B apart, and `tier_not_circular` the same without those; `discovery` by how lenses were found.
    """
    positive = images.positive
    circular = images.is_text("discovery", CIRCULAR)
    tiers = {name: positive & images.is_text("tier", name) for name in ("A", "B")}
    return {
        "overall": {"all": positive, "not_circular": positive & ~circular},
        "tier": tiers,
        "tier_not_circular": {name: rows & ~circular for name, rows in tiers.items()},
        "discovery": {
            name: positive & images.is_text("discovery", name) for name in images.values("discovery", positive)
        },
    }


def negative_groups(images: FinderImages) -> dict[str, Mask]:
    """Groups of negatives: `all`, `N1` and `N2`, and each category of confuser as `confuser <name>`."""
    negative = ~images.positive
    found = {"all": negative, **{pool: negative & images.is_text("pool", pool) for pool in ("N1", "N2")}}
    for name in CONFUSERS:
        found[f"confuser {name}"] = negative & images.is_text("confuser_category", name)
    return found


def rates(images: FinderImages, rows: Mask, cuts: Cuts, confidence: float) -> dict[str, Entry]:
    """Share of some images at or above each threshold, with Clopper-Pearson intervals."""
    logit = images.logit[rows]
    return {name: _rate(logit, cut, confidence) for name, cut in cuts.items()}


def survey_rates(images: FinderImages, rows: Mask, cuts: Cuts, confidence: float) -> dict[str, Entry]:
    """The same share of the survey's galaxies, by the inverse of the probability that each was sampled with.

    Of those, that is, which the sample stands for: galaxies of the pool of negatives in a stratum with sampled rows.
    """
    drawn = rows & np.isfinite(images.weight)
    found: dict[str, Entry] = {}
    for name, cut in cuts.items():
        if cut is None:
            found[name] = nothing_entry(f"the threshold {name} could not be had", int(drawn.sum()))
        elif not drawn.any() and rows.any():
            found[name] = nothing_entry("negatives have no sampling_prob")
        else:
            found[name] = weighted_rate(images.logit[drawn] >= cut, images.weight[drawn], confidence)
    return found


def recall_by_group(images: FinderImages, cuts: Cuts, confidence: float) -> dict[str, Any]:
    """Recall of each group of positives at each threshold."""
    return {
        scheme: {name: rates(images, rows, cuts, confidence) for name, rows in parts.items()}
        for scheme, parts in lens_groups(images).items()
    }


def auc_by_group(images: FinderImages, confidence: float) -> dict[str, Any]:
    """AUC of each group of positives against all negatives; under `against`, of all positives against each group."""
    negative = images.logit[~images.positive]
    found: dict[str, Any] = {
        scheme: {name: auc_entry(images.logit[rows], negative, confidence) for name, rows in parts.items()}
        for scheme, parts in lens_groups(images).items()
    }
    positive = images.logit[images.positive]
    found["against"] = {
        name: auc_entry(positive, images.logit[rows], confidence) for name, rows in negative_groups(images).items()
    }
    return found


def fpr_by_group(images: FinderImages, cuts: Cuts, confidence: float) -> dict[str, Any]:
    """False positive rates of each group of negatives: of the `sample` as it was drawn, and of the `survey`."""
    groups = negative_groups(images)
    return {
        "sample": {name: rates(images, rows, cuts, confidence) for name, rows in groups.items()},
        "survey": {name: survey_rates(images, rows, cuts, confidence) for name, rows in groups.items()},
    }


def _rate(logit: FloatArray, cut: float | None, confidence: float) -> Entry:
    if cut is None:
        return {**nothing_entry("the threshold could not be had", len(logit)), "k": None}
    return rate_entry(metrics.rate(int(np.sum(logit >= cut)), len(logit), confidence))
