"""From a network's logit to a probability: fitted on one sample, applied to any, moved to another prevalence.

A network learns from classes in a ratio that nothing on the sky has, so its sigmoid is no probability. Platt's scaling
(Platt 1999, Advances in Large Margin Classifiers, 61) and isotonic regression learn one from validation scores.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from dark_halo_scope.core.errors import BadInputError

FloatArray = NDArray[np.float64]

#: Far below what shows in a probability; the default stops three digits earlier.
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Platt:
    """p = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class Isotonic:
    """p by linear interpolation between knots, constant beyond them.

    logit: increasing, (K,).
    probability: not decreasing, (K,).
    """

    logit: tuple[float, ...]
    probability: tuple[float, ...]


def fit_platt(logits: ArrayLike, labels: ArrayLike) -> Platt:
    """Logistic regression on the logit, with Platt's targets.

    A positive counts as (P + 1)/(P + 2) and a negative as 1/(N + 2): no sample, however well it is separated, shows
    that a probability is 1.

    Args:
        logits: finite, (M,).
        labels: 0 or 1, both present, (M,).
    """
    x, y = np.asarray(logits, dtype=float), np.asarray(labels)
    positives, negatives = np.sum(y == 1), np.sum(y == 0)
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A target between the classes is one row in each, with weights that add up to one.
    scale = float(np.std(x)) or 1.0
    regression = LogisticRegression(C=np.inf, tol=_TOLERANCE, max_iter=10_000)
    regression.fit(
        np.concatenate([x, x])[:, None] / scale,
        np.concatenate([np.ones(len(x), dtype=int), np.zeros(len(x), dtype=int)]),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return Platt(float(regression.coef_[0, 0]) / scale, float(regression.intercept_[0]))


def fit_isotonic(logits: ArrayLike, labels: ArrayLike) -> Isotonic:
    """Isotonic regression on the logit, between 1/(M + 2) and (M + 1)/(M + 2).

    Without bounds a finite sample would claim probabilities of 0 and 1, and one surprise would cost an infinite loss.

    Args:
        logits: finite, (M,).
        labels: 0 or 1, (M,).
    """
    x, y = np.asarray(logits, dtype=float), np.asarray(labels, dtype=float)
    lowest = 1 / (len(x) + 2)
    regression = IsotonicRegression(y_min=lowest, y_max=1 - lowest, out_of_bounds="clip").fit(x, y)
    return Isotonic(tuple(regression.X_thresholds_.tolist()), tuple(regression.y_thresholds_.tolist()))


def prior_shift(from_prevalence: float, to_prevalence: float) -> float:
    """What is added to a logit where positives have another share: ln(pi'/(1-pi')) - ln(pi/(1-pi)).

    Exact where the classes look the same in both samples (Saerens et al. 2002, Neural Computation 14, 21, eq. 2.4).
    """
    return float(logit(to_prevalence) - logit(from_prevalence))


def calibrators_record(platt: Platt, isotonic: Isotonic) -> dict[str, Any]:
    """The two as they are written to calibration.json."""
    return {"platt": asdict(platt), "isotonic": {key: list(value) for key, value in asdict(isotonic).items()}}


def apply_calibration(
    logits: ArrayLike, calibration: Mapping[str, Any], method: str = "platt", prevalence: float | None = None
) -> FloatArray:
    """Probabilities of raw logits.

    Args:
        logits: of the network, any shape.
        calibration: what calibration.json holds: `calibrators` and the `prevalence` that they are for.
        method: `platt`, `isotonic`, or `raw` for the sigmoid alone.
        prevalence: of lenses where the probabilities are meant to hold; None: as in the validation sample.

    Raises:
        BadInputError: no such method, or this is no calibration.json.
    """
    x = np.asarray(logits, dtype=float)
    try:
        if method == "raw":
            calibrated = x
        elif method == "platt":
            platt = Platt(**calibration["calibrators"]["platt"])
            calibrated = platt.slope * x + platt.intercept
        elif method == "isotonic":
            isotonic = Isotonic(**calibration["calibrators"]["isotonic"])
            calibrated = logit(np.interp(x, isotonic.logit, isotonic.probability))
        else:
            raise BadInputError(f"There is no calibration {method!r}; there are raw, platt and isotonic.")
        shift = 0.0 if prevalence is None else prior_shift(float(calibration["prevalence"]), prevalence)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"This is no calibration ({error!r}); give a calibration.json.") from error
    return np.asarray(expit(calibrated + shift))
