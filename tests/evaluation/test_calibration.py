"""Probabilities come from validation scores alone, as scikit-learn's do, and move exactly to another prevalence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.calibration import (
    apply_calibration,
    calibrators_record,
    fit_isotonic,
    fit_platt,
    prior_shift,
)


class Logit(ClassifierMixin, BaseEstimator):
    """A classifier whose decision is its only feature."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Logit":
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0).astype(int)


def sample(n: int, seed: int = 0, slope: float = 1.0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `slope` x (true log odds) + `offset`, and labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, n)
    return slope * odds + offset, (rng.random(n) < expit(odds)).astype(int)


def record(logits: np.ndarray, labels: np.ndarray) -> dict:
    calibrators = calibrators_record(fit_platt(logits, labels), fit_isotonic(logits, labels))
    return {"calibrators": calibrators, "prevalence": float(labels.mean())}


@pytest.mark.parametrize("seed", range(5))
def test_platt_scaling_is_that_of_scikit_learn(seed: int) -> None:
    logits, labels = sample(500, seed, slope=3.0, offset=2.0)
    known = CalibratedClassifierCV(FrozenEstimator(Logit().fit(logits[:, None], labels)), method="sigmoid")
    known.fit(logits[:, None], labels)
    p = apply_calibration(logits, record(logits, labels), "platt")
    np.testing.assert_allclose(p, known.predict_proba(logits[:, None])[:, 1], atol=2e-5)


def test_isotonic_regression_is_that_of_scikit_learn_within_its_bounds() -> None:
    logits, labels = sample(500, slope=0.2)
    lowest = 1 / 502
    known = IsotonicRegression(y_min=lowest, y_max=1 - lowest, out_of_bounds="clip").fit(logits, labels)
    elsewhere = np.linspace(-3, 3, 1000)
    p = apply_calibration(elsewhere, record(logits, labels), "isotonic")
    np.testing.assert_allclose(p, known.predict(elsewhere), atol=1e-9)


def test_known_distortions_of_the_logit_are_undone() -> None:
    platt = fit_platt(*sample(200_000, slope=2.0, offset=-1.0))
    assert platt.slope == pytest.approx(0.5, abs=0.01)
    assert platt.intercept == pytest.approx(0.5, abs=0.02)


@given(
    npst.arrays(float, st.integers(4, 60), elements=st.floats(-50, 50)),
    st.randoms(use_true_random=False),
)
def test_isotonic_probabilities_never_fall_and_are_never_certain(logits: np.ndarray, random) -> None:
    labels = np.array([0, 1, *(random.randint(0, 1) for _ in range(len(logits) - 2))])
    p = apply_calibration(np.linspace(-60, 60, 400), record(logits, labels), "isotonic")
    assert np.all(np.diff(p) >= -1e-12)
    assert 0 < p.min() <= p.max() < 1


def test_classes_that_never_mix_give_no_certain_probability() -> None:
    logits, labels = np.r_[np.full(50, -5.0), np.full(50, 5.0)], np.repeat([0, 1], 50)
    for method in ("platt", "isotonic"):
        p = apply_calibration(logits, record(logits, labels), method)
        assert 0 < p.min() < 0.03
        assert 0.97 < p.max() < 1


@given(st.floats(0.001, 0.999), st.floats(1e-6, 0.999), st.floats(0.01, 0.99))
def test_a_probability_moves_to_another_prevalence_as_bayes_has_it(pi: float, target: float, p: float) -> None:
    ratio = p / (1 - p) * ((1 - pi) / pi) * (target / (1 - target))
    moved = expit(np.log(p / (1 - p)) + prior_shift(pi, target))
    assert moved == pytest.approx(ratio / (1 + ratio), rel=1e-9)


def test_the_shift_starts_from_the_prevalence_of_the_validation_sample() -> None:
    logits, labels = sample(400)
    calibration = record(logits, labels)
    for method in ("platt", "isotonic"):
        here = apply_calibration(logits, calibration, method)
        same = apply_calibration(logits, calibration, method, prevalence=calibration["prevalence"])
        np.testing.assert_allclose(here, same)
        assert np.all(apply_calibration(logits, calibration, method, prevalence=1e-4) < here)


def test_the_sigmoid_alone_is_a_method_too() -> None:
    logits, labels = sample(100)
    np.testing.assert_array_equal(apply_calibration(logits, record(logits, labels), "raw"), expit(logits))


@pytest.mark.parametrize("calibration", [{}, {"calibrators": {"platt": {"slope": 1.0}}}])
def test_what_is_no_calibration_is_refused(calibration: dict) -> None:
    with pytest.raises(BadInputError, match="calibration"):
        apply_calibration([0.0], calibration, "platt")


def test_an_unknown_method_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(BadInputError, match="raw, platt and isotonic"):
        apply_calibration([0.0], {}, "beta")
