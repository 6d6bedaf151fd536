"""Losses and schedules: formulas of their papers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.training.config import LossSettings, OptimizerSettings
from dark_halo_scope.training.losses import image_loss, pair_ranking_loss
from dark_halo_scope.training.schedules import ema_decay, learning_rate

PLAN = OptimizerSettings()


@given(logit=st.floats(-20, 20), label=st.sampled_from([0.0, 1.0]))
def test_binary_cross_entropy_is_minus_the_log_of_the_probability_of_the_truth(logit: float, label: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    loss = image_loss(torch.tensor([logit]).double(), torch.tensor([label]).double(), LossSettings())
    assert loss.item() == pytest.approx(-math.log(p if label else 1 - p), rel=1e-6, abs=1e-9)


@given(logit=st.floats(-8, 8), label=st.sampled_from([0.0, 1.0]))
def test_focal_loss_is_equation_5_of_lin_et_al(logit: float, label: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    p_t, alpha_t = (p, 0.25) if label else (1 - p, 0.75)
    loss = image_loss(torch.tensor([logit]).double(), torch.tensor([label]).double(), LossSettings(kind="focal"))
    assert loss.item() == pytest.approx(-alpha_t * (1 - p_t) ** 2 * math.log(p_t), rel=1e-6, abs=1e-12)


def test_losses_stay_finite_at_extreme_logits() -> None:
    for kind in ("bce", "focal"):
        settings = LossSettings.model_validate({"kind": kind})
        assert torch.isfinite(image_loss(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 1.0]), settings)).all()


def test_the_ranking_loss_wants_positives_above_both_negatives_of_their_pair() -> None:
    good = torch.tensor([[5.0, 3.0], [-5.0, -7.0], [-5.0, -7.0]])
    assert pair_ranking_loss(good) < 0.001
    for negative in (1, 2):
        bad = good.clone()
        bad[negative] = 8.0
        assert pair_ranking_loss(bad) > 1
    assert pair_ranking_loss(torch.zeros(3, 4)).item() == pytest.approx(math.log(2))


def test_warm_up_rises_linearly_to_the_plans_rate_and_the_cosine_ends_at_its_hundredth() -> None:
    rates = np.array([learning_rate(step, 100, 30, PLAN) for step in range(3000)])
    np.testing.assert_allclose(rates[:300], 1e-4 * np.arange(1, 301) / 300)
    assert rates.max() == pytest.approx(1e-4)
    assert (np.diff(rates[300:]) < 0).all()
    assert rates[(300 + 2999) // 2] == pytest.approx(0.5 * (1e-4 + 1e-6), rel=0.01)
    assert rates[-1] == pytest.approx(1e-6)


def test_no_warm_up_starts_at_the_full_rate() -> None:
    assert learning_rate(0, 100, 10, OptimizerSettings(warmup_epochs=0)) == pytest.approx(1e-4)


def test_the_average_forgets_the_first_weights_sooner() -> None:
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(10**6, 0.999) == 0.999
