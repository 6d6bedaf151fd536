"""Whether probabilities mean what they say: reliability curve, ECE, Brier score and log loss, with their uncertainty.

Bins hold equal numbers of rows: with bins of equal width nearly all rows of a rare class would be in the first.
Where labels are reweighted to another prevalence, each class has one weight. Within a bin the odds then change by one
factor, so the exact interval of its observed rate moves with it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dark_halo_scope.evaluation.calibration_config import CalibrationSettings
from dark_halo_scope.evaluation.host_resampling import percentile_interval
from dark_halo_scope.evaluation.host_sums import host_sums, resample, resample_together
from dark_halo_scope.evaluation.intervals import FloatArray, Interval, clopper_pearson
from dark_halo_scope.evaluation.metrics import MIN_FALSE_POSITIVES


@dataclass(frozen=True)
class Forecasts:
    """Probabilities and what came of them.

    label: 0 or 1, (N,).
    probability: (N,).
    host: number of each row's host galaxy, (N,).
    positive_weight, negative_weight: of the rows of each class.
    """

    label: NDArray[np.integer]
    probability: FloatArray
    host: NDArray[np.integer]
    positive_weight: float = 1.0
    negative_weight: float = 1.0

    @property
    def weight(self) -> FloatArray:
        """(N,) weight of each row."""
        return np.where(self.label == 1, self.positive_weight, self.negative_weight)

    @property
    def odds_factor(self) -> float:
        """By which the weights change odds."""
        return self.positive_weight / self.negative_weight

    def where(self, mask: NDArray[np.bool_]) -> "Forecasts":
        """Those of some rows."""
        return Forecasts(
            self.label[mask], self.probability[mask], self.host[mask], self.positive_weight, self.negative_weight
        )


def class_weights(prevalence: float, wanted: float) -> tuple[float, float]:
    """Weights of positives and negatives that give a sample another prevalence and leave its total."""
    return wanted / prevalence, (1 - wanted) / (1 - prevalence)


def mass_bins(probability: FloatArray, bins: int) -> NDArray[np.intp]:
    """(N,) bin of each row, between quantiles; equal probabilities share a bin, so that some may be empty."""
    # Percentiles, as scikit-learn takes them: quantiles round otherwise, and move what is tied at an edge.
    edges = np.percentile(probability, np.linspace(0, 1, bins + 1) * 100)
    return np.searchsorted(edges[1:-1], probability)


def reliability_curve(
    forecasts: Forecasts, bins: int, confidence: float, bootstraps: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Mean probability and observed rate of each bin that is not empty, lowest first.

    The interval is Clopper-Pearson's of k of n, moved to the weights' prevalence as the rate itself is; `host_interval`
    resamples host galaxies, in bins that stay where they are.
    """
    group = mass_bins(forecasts.probability, bins)
    count = np.bincount(group, minlength=bins)
    hits = np.bincount(group, weights=forecasts.label, minlength=bins)
    weight = np.bincount(group, weights=forecasts.weight, minlength=bins)
    total = np.bincount(group, weights=forecasts.weight * forecasts.probability, minlength=bins)
    low, high = clopper_pearson(hits, count, confidence)
    sums = [host_sums(values, group, forecasts.host, bins) for values in (forecasts.label, np.ones(len(group)))]
    hits_BK, count_BK = resample_together(sums, rng, bootstraps)
    rates_BK = np.divide(hits_BK, count_BK, out=np.full(hits_BK.shape, np.nan), where=count_BK > 0)
    around = [percentile_interval(rates_K, confidence) for rates_K in rates_BK.T]
    return [
        {
            "mean_probability": float(total[i] / weight[i]),
            "value": _moved(hits[i] / count[i], forecasts),
            "interval": [_moved(low[i], forecasts), _moved(high[i], forecasts)],
            "host_interval": _moved_interval(around[i], forecasts),
            "k": int(hits[i]),
            "n": int(count[i]),
        }
        for i in np.flatnonzero(count)
    ]


def expected_calibration_error(forecasts: Forecasts, bins: int) -> float:
    """Mean over rows of |observed rate - mean probability| of their bin."""
    group = mass_bins(forecasts.probability, bins)
    excess = np.bincount(group, weights=forecasts.weight * (forecasts.label - forecasts.probability))
    return float(np.abs(excess).sum() / forecasts.weight.sum())


def brier_losses(forecasts: Forecasts) -> FloatArray:
    """(N,) squared differences of probability and label; their mean is the Brier score."""
    return (forecasts.probability - forecasts.label) ** 2


def log_losses(forecasts: Forecasts) -> FloatArray:
    """(N,) -ln of the probability of what came, kept finite as scikit-learn does, by the rounding error of 1."""
    epsilon = np.finfo(float).eps
    p = np.clip(forecasts.probability, epsilon, 1 - epsilon)
    return -np.where(forecasts.label == 1, np.log(p), np.log1p(-p))


def measure(forecasts: Forecasts, settings: CalibrationSettings, rng: np.random.Generator) -> dict[str, Any]:
    """Everything that calibration.json says about one set of probabilities."""
    high = forecasts.where(forecasts.probability > settings.above)
    return {
        "ece": _ece_entry(forecasts, settings, rng),
        "ece_above": _ece_entry(high, settings, rng) | {"above": settings.above},
        "brier": _mean_entry(forecasts, brier_losses(forecasts), settings, rng),
        "log_loss": _mean_entry(forecasts, log_losses(forecasts), settings, rng),
        # A stream of its own leaves the draws of all other numbers as they are.
        "reliability": reliability_curve(
            forecasts, settings.bins, settings.confidence, settings.bootstraps, rng.spawn(1)[0]
        ),
    }


def measure_constant(forecasts: Forecasts, settings: CalibrationSettings) -> dict[str, Any]:
    """The same numbers for a constant probability: what they are worth where nothing was learnt at all."""
    weight = forecasts.weight
    return {
        "probability": float(forecasts.probability[0]),
        "ece": expected_calibration_error(forecasts, settings.bins),
        "brier": float(np.average(brier_losses(forecasts), weights=weight)),
        "log_loss": float(np.average(log_losses(forecasts), weights=weight)),
    }


def too_few(forecasts: Forecasts, settings: CalibrationSettings) -> str | None:
    """Why nothing is measurable on these rows; None where something is.

    Where classes are reweighted, a handful of rows of the rarer one decide everything.
    """
    rows = len(forecasts.label)
    # Images of one galaxy are no independent rows.
    hosts = len(np.unique(forecasts.host))
    if hosts < settings.min_rows:
        return f"not measurable: {hosts} galaxies, {settings.min_rows} are needed"
    rarer = int(min(forecasts.label.sum(), rows - forecasts.label.sum()))
    if forecasts.odds_factor != 1 and rarer < MIN_FALSE_POSITIVES:
        return f"not measurable: {rarer} rows of the rarer class, {MIN_FALSE_POSITIVES} are needed to reweight them"
    return None


def _ece_entry(forecasts: Forecasts, settings: CalibrationSettings, rng: np.random.Generator) -> dict[str, Any]:
    rows = len(forecasts.label)
    problem = too_few(forecasts, settings)
    if problem:
        return _entry(None, None, rows, problem) | {"if_calibrated": None}
    value = expected_calibration_error(forecasts, settings.bins)
    group = mass_bins(forecasts.probability, settings.bins)
    weight = forecasts.weight
    # Bins stay where they are: their edges are part of what is measured.
    excess = host_sums(weight * (forecasts.label - forecasts.probability), group, forecasts.host, settings.bins)
    total = host_sums(weight, group, forecasts.host, settings.bins)
    excess_BK, total_BK = resample_together((excess, total), rng, settings.bootstraps)
    values = np.abs(excess_BK).sum(axis=1) / total_BK.sum(axis=1)
    chance = _perfect_ece(forecasts, group, settings, rng)
    half = stats.norm.ppf(0.5 + settings.confidence / 2) * values.std()
    # Noise raises a sum of absolute differences. How much of that is in the value shows in how much resampling, which
    # adds noise again, raises it; and a value that chance alone gives may be one of perfect probabilities.
    raised = max(0.0, float(values.mean()) - value)
    low = 0.0 if value <= chance["high"] else max(0.0, value - half - raised)
    return _entry(value, Interval(low, float(value + half)), rows) | {"if_calibrated": chance}


def _perfect_ece(
    forecasts: Forecasts, group: NDArray[np.intp], settings: CalibrationSettings, rng: np.random.Generator
) -> dict[str, float]:
    """Mean and upper bound of the ECE that chance gives to these very probabilities where they are right.

    Labels are drawn as the sample has them, before weights change the odds.
    """
    p = forecasts.probability
    odds = p / (1 - p + np.finfo(float).tiny) / forecasts.odds_factor
    in_sample = np.where(p == 1, 1.0, odds / (1 + odds))
    values = []
    for _ in range(settings.simulations):
        label = rng.random(len(p)) < in_sample
        weight = np.where(label, forecasts.positive_weight, forecasts.negative_weight)
        excess = np.bincount(group, weights=weight * (label - p))
        values.append(np.abs(excess).sum() / weight.sum())
    return {"mean": float(np.mean(values)), "high": float(np.quantile(values, settings.confidence))}


def _mean_entry(
    forecasts: Forecasts, losses: FloatArray, settings: CalibrationSettings, rng: np.random.Generator
) -> dict[str, Any]:
    rows = len(losses)
    problem = too_few(forecasts, settings)
    if problem:
        return _entry(None, None, rows, problem)
    group = np.repeat([0, 1], rows)
    both = np.concatenate([forecasts.weight * losses, forecasts.weight])
    sums = resample(host_sums(both, group, np.tile(forecasts.host, 2), 2), rng, settings.bootstraps)
    value = float(np.average(losses, weights=forecasts.weight))
    return _entry(value, percentile_interval(sums[:, 0] / sums[:, 1], settings.confidence), rows)


def _moved(rate: float, forecasts: Forecasts) -> float:
    positive = forecasts.odds_factor * float(rate)
    return positive / (positive + 1 - float(rate))


def _moved_interval(interval: Interval | None, forecasts: Forecasts) -> list[float] | None:
    return None if interval is None else [_moved(interval.low, forecasts), _moved(interval.high, forecasts)]


def _entry(value: float | None, interval: Interval | None, n: int, status: str = "measured") -> dict[str, Any]:
    bounds = None if interval is None else [interval.low, interval.high]
    return {"value": value, "n": n, "interval": bounds, "status": status}
