"""Thresholds of a finder, chosen on validation scores or fixed beforehand: never on the test split."""

from typing import Any

import numpy as np
from scipy.special import expit, logit

from dark_halo_scope.evaluation import metrics
from dark_halo_scope.evaluation.finder_images import FinderImages
from dark_halo_scope.evaluation.number_entry import MEASURED, few_false_positives, not_measurable, rate_entry
from dark_halo_scope.evaluation.survey_rates import measurable, weighted_rate, weighted_threshold
from dark_halo_scope.evaluation.validation_config import ValidationSettings

Thresholds = dict[str, dict[str, Any]]

FIXED = "fixed"


def choose_thresholds(val: FinderImages, settings: ValidationSettings) -> Thresholds:
    """Every threshold by its name, JSON-ready.

    `logit` and `score` are null, and `status` says why, where too few negatives pass. `val` says what a threshold gives
    on the images that it was chosen on.
    """
    positive, negative = val.logit[val.positive], val.logit[~val.positive]
    found: Thresholds = {}
    for p in settings.probabilities:
        found[f"p{p:g}"] = _entry(float(logit(p)), val, settings, FIXED, p)
    for target in settings.fprs:
        point = metrics.tpr_at_fpr(positive, negative, target, settings.confidence)
        name = f"fpr{target:g}"
        if point.measurable:
            found[name] = _entry(point.threshold, val, settings, "share of negatives", target)
        else:
            why = f"of {len(negative)} negatives of val, {few_false_positives(point.fpr.successes)}"
            found[name] = _nothing(why, "share of negatives", target)
    for target in settings.survey_fprs:
        found[f"survey_fpr{target:g}"] = _survey(val, target, settings)
    for target in settings.recalls:
        point = metrics.precision_at_recall(positive, negative, target, settings.confidence)
        found[f"recall{target:g}"] = _entry(point.threshold, val, settings, "share of positives", target)
    return found


def _survey(val: FinderImages, target: float, settings: ValidationSettings) -> dict[str, Any]:
    rule = "share of the survey's negatives"
    drawn = ~val.positive & np.isfinite(val.weight)
    if not drawn.any():
        return _nothing("negatives of val have no sampling_prob", rule, target)
    threshold, passing = weighted_threshold(val.logit[drawn], val.weight[drawn], target)
    if not measurable(passing):
        return _nothing(f"of {int(drawn.sum())} negatives of val, {few_false_positives(passing)}", rule, target)
    return _entry(threshold, val, settings, rule, target)


def _entry(
    threshold: float, val: FinderImages, settings: ValidationSettings, rule: str, target: float
) -> dict[str, Any]:
    passed = val.logit >= threshold
    hits, alarms = passed[val.positive], passed[~val.positive]
    drawn = ~val.positive & np.isfinite(val.weight)
    return {
        "logit": threshold,
        "score": float(expit(threshold)),
        "status": MEASURED,
        "rule": rule,
        "target": target,
        "val": {
            "recall": rate_entry(metrics.rate(int(hits.sum()), len(hits), settings.confidence)),
            "fpr": rate_entry(metrics.rate(int(alarms.sum()), len(alarms), settings.confidence)),
            "survey_fpr": weighted_rate(passed[drawn], val.weight[drawn], settings.confidence),
        },
    }


def _nothing(why: str, rule: str, target: float) -> dict[str, Any]:
    return {
        "logit": None,
        "score": None,
        "status": not_measurable(why),
        "rule": rule,
        "target": target,
        "val": None,
    }
