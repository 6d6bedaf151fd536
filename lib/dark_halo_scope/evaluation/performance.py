"""What a generation's scores of the test split say as a whole, each number with its count and interval.

Images of one galaxy are no independent draws. Exact binomial intervals and DeLong's take them for such, and stand
beside intervals from a bootstrap over hosts, which does not (`host_interval`; of areas, `interval`). The control
of a galaxy that bears several arcs is one image: rates of false positives, ROC and AUROC count it once. Precision,
average precision and accuracy depend on how many of each class there are: they are of pairs, a control for each
positive, so that the prevalence is a half.

Thresholds of rates at a fixed rate come from the very images on which they are reported, as is convention. Those of
operating points come from validation scores and are applied to test scores: they are for use on other images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.evaluation import host_resampling as resampling
from dark_halo_scope.evaluation import metrics
from dark_halo_scope.evaluation.intervals import FloatArray, clopper_pearson, delong
from dark_halo_scope.evaluation.number_entry import (
    Entry,
    bounds,
    few_false_positives,
    fpr_entry,
    not_measurable,
    nothing_entry,
    number_entry,
    rate_entry,
)
from dark_halo_scope.evaluation.performance_config import PerformanceSettings
from dark_halo_scope.evaluation.score_table import CONTROL, HARD_NEGATIVE, NEGATIVE, POSITIVE, ScoreTable

_THIN_FPR_DECADES = 6


@dataclass(frozen=True)
class Sample:
    """Scores of one class, (N,), and the number of each one's host galaxy, (N,)."""

    score: FloatArray
    host: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.score)


def sample(table: ScoreTable, kind: int, repeated: bool = False) -> Sample:
    """The images of a kind; those that repeat a galaxy's control only where asked for."""
    chosen = (table.kind == kind) & (True if repeated else ~table.repeated)
    return Sample(table.score[chosen], table.host[chosen])


def performance(test: ScoreTable, val: ScoreTable, settings: PerformanceSettings) -> dict[str, Any]:
    """Everything that performance.json says about two splits' scores, JSON-ready.

    Args:
        test: scores that are reported on.
        val: scores on which the thresholds of operating points are chosen.
        settings: rates, thresholds and intervals.
    """
    positive, controls = sample(test, POSITIVE), sample(test, CONTROL)
    pairs = sample(test, CONTROL, repeated=True)
    return {
        "counts": {"test": counts(test), "val": counts(val)},
        "positives_vs_controls": compare(positive, controls, pairs, settings),
        "positives_vs_negatives": compare(positive, sample(test, NEGATIVE), None, settings),
        "positives_vs_hard_negatives": compare(positive, sample(test, HARD_NEGATIVE), None, settings),
        "fpr_at_threshold": {
            "threshold": settings.threshold,
            **{
                name: _plain_fpr(sample(test, kind), settings.threshold, settings)
                for name, kind in (("control", CONTROL), ("hard_negative", HARD_NEGATIVE), ("negative", NEGATIVE))
            },
        },
        "validation": {"auroc": _auroc(val, settings)},
        "operating_points": [operating_point(test, val, target, settings) for target in settings.operating_fprs],
        "roc": thinned_roc(positive.score, controls.score, settings.roc_points, settings.confidence),
    }


def counts(table: ScoreTable) -> dict[str, dict[str, int]]:
    """Images, distinct images and host galaxies of each kind."""
    found = {}
    for name, kind in (
        ("positive", POSITIVE),
        ("control", CONTROL),
        ("hard_negative", HARD_NEGATIVE),
        ("negative", NEGATIVE),
    ):
        everything = sample(table, kind, repeated=True)
        found[name] = {
            "images": len(everything),
            "distinct": len(sample(table, kind)),
            "hosts": len(np.unique(everything.host)),
        }
    return found


def compare(
    positive: Sample, negative: Sample, pairs: Sample | None, settings: PerformanceSettings
) -> dict[str, Any] | Entry:
    """All rates of two classes; one entry that says why where a class has fewer than two images.

    Args:
        positive: positives.
        negative: negatives, each image once.
        pairs: as many negatives as belong to the positives, for what depends on the prevalence; None: `negative`.
        settings: rates, thresholds and intervals.
    """
    if min(len(positive), len(negative)) < 2:
        return nothing_entry(f"{len(positive)} positives and {len(negative)} negatives are too few", len(negative))
    beside = negative if pairs is None else pairs
    pos, neg, both = positive.score, negative.score, len(positive) + len(negative)
    confidence = settings.confidence
    replicates = _resampled(positive, negative, settings, _statistics(settings))
    of_pairs = _resampled(positive, beside, settings, _statistics_of_pairs(settings))
    area, exact = delong(pos, neg, confidence)
    labels = np.concatenate([np.ones(len(pos), int), np.zeros(len(beside), int)])
    precision = metrics.average_precision(labels, np.concatenate([pos, beside.score]))
    counted = metrics.confusion(pos, beside.score, settings.threshold)
    right = np.concatenate([pos >= settings.threshold, beside.score < settings.threshold])
    return {
        "n_positive": len(positive),
        "n_negative": len(negative),
        "hosts_positive": len(np.unique(positive.host)),
        "hosts_negative": len(np.unique(negative.host)),
        "auroc": number_entry(area, both, replicates["auroc"]),
        "auroc_delong": number_entry(area, both, exact),
        "average_precision": {
            **number_entry(precision.value, len(labels), of_pairs["average_precision"]),
            "prevalence": precision.prevalence,
        },
        "accuracy": {
            **rate_entry(metrics.accuracy(pos, beside.score, settings.threshold, confidence)),
            "threshold": settings.threshold,
            "prevalence": precision.prevalence,
            "host_interval": _share_interval(right, np.concatenate([positive.host, beside.host]), settings),
        },
        "confusion": {
            "threshold": settings.threshold,
            "true_positives": counted.true_positives,
            "false_positives": counted.false_positives,
            "true_negatives": counted.true_negatives,
            "false_negatives": counted.false_negatives,
        },
        "precision_at_recall": [
            _precision_entry(recall, metrics.precision_at_recall(pos, beside.score, recall, confidence), precision)
            | {"host_interval": bounds(of_pairs[f"precision@{recall}"])}
            for recall in settings.recalls
        ],
        "recall_at_precision": [
            _recall_entry(goal, metrics.recall_at_precision(pos, beside.score, goal, confidence), precision)
            | {"host_interval": bounds(of_pairs[f"recall@{goal}"])}
            for goal in settings.precisions
        ],
        "tpr_at_fpr": [
            _tpr_entry(target, metrics.tpr_at_fpr(pos, neg, target, confidence), replicates[f"tpr@{target}"])
            for target in settings.fpr_targets
        ],
        "fpr_at_tpr": [
            _fpr_entry(target, metrics.precision_at_recall(pos, neg, target, confidence), replicates[f"fpr@{target}"])
            for target in settings.tpr_targets
        ],
    }


def operating_point(test: ScoreTable, val: ScoreTable, target: float, settings: PerformanceSettings) -> dict[str, Any]:
    """The threshold of a false positive rate of validation controls, and what it gives on the test split.

    `threshold` is null, and `status` says why, where fewer than ten validation controls lie above it.
    """
    found: dict[str, Any] = {"fpr_target": target, "threshold": None}
    positive, controls = sample(val, POSITIVE), sample(val, CONTROL)
    if not len(positive) or not len(controls):
        return {**found, "status": not_measurable("validation scores lack positives or controls")}
    chosen = metrics.tpr_at_fpr(positive.score, controls.score, target, settings.confidence)
    on_val = {"tpr": rate_entry(chosen.tpr), "fpr": fpr_entry(chosen.fpr)}
    if not chosen.measurable:
        why = f"of {len(controls)} validation controls, {few_false_positives(chosen.fpr.successes)}"
        return {**found, "status": not_measurable(why), "val": on_val}
    threshold = chosen.threshold
    kinds = {"tpr": POSITIVE, "fpr": CONTROL, "hard_negative_fpr": HARD_NEGATIVE, "negative_fpr": NEGATIVE}
    on_test = {name: _plain_fpr(sample(test, kind), threshold, settings) for name, kind in kinds.items()}
    return {**found, "threshold": threshold, "status": "measured", "val": on_val, "test": on_test}


def thinned_roc(positive: FloatArray, negative: FloatArray, points: int, confidence: float) -> dict[str, Any]:
    """The ROC for a figure: at most `points` of its points, both ends among them, with exact binomial bands.

    Half of the points are spread evenly over the true positive rate, half over the false positive rate's logarithm.

    Returns:
        Lists of equal length, thresholds decreasing: `fpr`, `fpr_low`, `fpr_high`, `tpr`, `tpr_low`, `tpr_high`,
        `threshold` (null for the first point, which no score reaches); and `n_positive`, `n_negative`. Empty without a
        class.
    """
    names = ("fpr", "fpr_low", "fpr_high", "tpr", "tpr_low", "tpr_high", "threshold")
    n_positive, n_negative = len(positive), len(negative)
    if not n_positive or not n_negative:
        return {**{name: [] for name in names}, "n_positive": n_positive, "n_negative": n_negative}
    labels = np.concatenate([np.ones(n_positive, int), np.zeros(n_negative, int)])
    fpr, tpr, threshold = metrics.roc_curve(labels, np.concatenate([positive, negative]))
    half = (points - 2) // 2
    wanted_fpr = np.geomspace(10.0**-_THIN_FPR_DECADES, 1, half)
    places = np.concatenate(
        [
            [0, len(fpr) - 1],
            np.searchsorted(tpr, np.linspace(0, 1, half)),
            np.searchsorted(fpr, wanted_fpr, side="right") - 1,
        ]
    )
    kept = np.unique(places)
    fpr, tpr, threshold = fpr[kept], tpr[kept], threshold[kept]
    fpr_low, fpr_high = clopper_pearson(np.round(fpr * n_negative), n_negative, confidence)
    tpr_low, tpr_high = clopper_pearson(np.round(tpr * n_positive), n_positive, confidence)
    columns = (fpr, fpr_low, fpr_high, tpr, tpr_low, tpr_high)
    lists = {name: [float(value) for value in values] for name, values in zip(names, columns, strict=False)}
    lists["threshold"] = [float(value) if np.isfinite(value) else None for value in threshold]  # type: ignore[misc]
    return {**lists, "n_positive": n_positive, "n_negative": n_negative}


def _auroc(table: ScoreTable, settings: PerformanceSettings) -> Entry:
    """AUROC of positives against controls with its host-bootstrap interval."""
    positive, controls = sample(table, POSITIVE), sample(table, CONTROL)
    if min(len(positive), len(controls)) < 2:
        return nothing_entry(f"{len(positive)} positives and {len(controls)} controls are too few")
    area, _ = delong(positive.score, controls.score, settings.confidence)
    interval = _resampled(positive, controls, settings, {"auroc": resampling.auc})["auroc"]
    return number_entry(area, len(positive) + len(controls), interval)


Statistics = Mapping[str, Callable[[resampling.Resampled], FloatArray]]


def _statistics_of_pairs(settings: PerformanceSettings) -> Statistics:
    return {
        "average_precision": resampling.average_precision,
        **{f"precision@{goal}": partial(resampling.precision_at_tpr, target=goal) for goal in settings.recalls},
        **{f"recall@{goal}": partial(resampling.tpr_at_precision, target=goal) for goal in settings.precisions},
    }


def _statistics(settings: PerformanceSettings) -> Statistics:
    return {
        "auroc": resampling.auc,
        **{f"tpr@{target}": partial(resampling.tpr_at_fpr, target=target) for target in settings.fpr_targets},
        **{f"fpr@{target}": partial(resampling.fpr_at_tpr, target=target) for target in settings.tpr_targets},
    }


def _resampled(
    positive: Sample, negative: Sample, settings: PerformanceSettings, statistics: Statistics
) -> dict[str, Any]:
    """Host-bootstrap interval of each statistic; None where intervals are left out."""
    if not settings.bootstraps:
        return dict.fromkeys(statistics)
    rng = np.random.default_rng(settings.seed)
    levels = resampling.choose_levels(np.sort(positive.score), np.sort(negative.score))
    host = np.unique(np.concatenate([positive.host, negative.host]), return_inverse=True)[1]
    group = resampling.host_groups(host, rng)
    split = len(positive)
    parts = ((positive.score, group[:split]), (negative.score, group[split:]))
    counted = [resampling.count(groups, levels.of(score), len(levels.edges)) for score, groups in parts]
    drawn: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    for resampled in resampling.resamples(
        resampling.grouped(counted[0], counted[1], levels.exact), rng, settings.bootstraps
    ):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(resampled))
    return {
        name: resampling.percentile_interval(np.concatenate(values), settings.confidence)
        for name, values in drawn.items()
    }


def _plain_fpr(images: Sample, threshold: float, settings: PerformanceSettings) -> Entry:
    """Share of images at or above a threshold that was chosen elsewhere: a rate that any count carries."""
    passed = images.score >= threshold
    rate = metrics.rate(int(passed.sum()), len(images), settings.confidence)
    return rate_entry(rate) | {"host_interval": _share_interval(passed, images.host, settings)}


def _share_interval(
    hit: NDArray[np.bool_], host: NDArray[np.integer], settings: PerformanceSettings
) -> list[float] | None:
    """Host-bootstrap interval of the share of hits; None without images and where intervals are left out."""
    if not settings.bootstraps or not len(hit):
        return None
    values = resampling.share(hit, host, np.random.default_rng(settings.seed), settings.bootstraps)
    return bounds(resampling.percentile_interval(values, settings.confidence))


def _precision_entry(recall: float, point: metrics.OperatingPoint, area: metrics.PrecisionRecallArea) -> dict[str, Any]:
    return {
        **rate_entry(point.precision),
        "recall_target": recall,
        "recall": rate_entry(point.tpr),
        "threshold": point.threshold,
        "prevalence": area.prevalence,
    }


def _recall_entry(
    precision: float, point: metrics.OperatingPoint | None, area: metrics.PrecisionRecallArea
) -> dict[str, Any]:
    beside = {"precision_target": precision, "prevalence": area.prevalence}
    if point is None:
        return {**nothing_entry("no threshold reaches this precision"), **beside, "threshold": None}
    return {
        **rate_entry(point.tpr),
        **beside,
        "precision": rate_entry(point.precision),
        "threshold": point.threshold,
    }


def _tpr_entry(target: float, point: metrics.OperatingPoint, resampled: Any) -> dict[str, Any]:
    beside = {"fpr_target": target, "fpr": fpr_entry(point.fpr), "threshold": point.threshold}
    if not point.measurable:
        why = few_false_positives(point.fpr.successes)
        return {**nothing_entry(why, point.tpr.trials), **beside, "threshold": None, "host_interval": None}
    return {**rate_entry(point.tpr), **beside, "host_interval": bounds(resampled)}


def _fpr_entry(target: float, point: metrics.OperatingPoint, resampled: Any) -> dict[str, Any]:
    return {
        **fpr_entry(point.fpr),
        "tpr_target": target,
        "tpr": rate_entry(point.tpr),
        "threshold": point.threshold,
        "host_interval": bounds(resampled),
    }
