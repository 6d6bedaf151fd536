"""Losses and schedules: formulas of their papers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

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


@given(logit=st.floats(-8, 8), share=st.floats(0, 1), kind=st.sampled_from(["bce", "focal"]))
def test_a_target_between_0_and_1_costs_what_that_share_of_lenses_would(logit: float, share: float, kind: str) -> None:
    settings = LossSettings.model_validate({"kind": kind})
    logits, targets = torch.full((3,), logit).double(), torch.tensor([1.0, 0.0, share]).double()
    lens, rest, mixed = image_loss(logits, targets, settings).tolist()
    # The loss is single precision inside.
    assert mixed == pytest.approx(share * lens + (1 - share) * rest, rel=1e-5, abs=1e-9)


@given(logit=st.floats(-8, 8), weight=st.floats(0.1, 100))
def test_pos_weight_multiplies_the_loss_of_lenses_and_of_nothing_else(logit: float, weight: float) -> None:
    logits, labels = torch.tensor([logit, logit]).double(), torch.tensor([1.0, 0.0]).double()
    plain = image_loss(logits, labels, LossSettings()).tolist()
    weighted = image_loss(logits, labels, LossSettings(pos_weight=weight)).tolist()
    assert weighted == pytest.approx([weight * plain[0], plain[1]], rel=1e-6, abs=1e-9)


def test_the_focal_loss_refuses_a_second_weight_of_lenses() -> None:
    with pytest.raises(ValidationError, match="focal_alpha"):
        LossSettings(kind="focal", pos_weight=2.0)


@pytest.mark.parametrize("smoothing", [{"B": 0.5}, {"B": -0.1}])
def test_smoothing_that_would_turn_a_label_round_is_refused(smoothing: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LossSettings(label_smoothing=smoothing)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_an_image_judged_perfectly_has_a_finite_gradient(gamma: float) -> None:
    logit = torch.tensor([100.0, -100.0], requires_grad=True)
    image_loss(logit, torch.tensor([1.0, 0.0]), LossSettings(kind="focal", focal_gamma=gamma)).sum().backward()
    assert logit.grad is not None
    assert logit.grad.tolist() == [0.0, 0.0]


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


RESTARTS = OptimizerSettings(schedule="warm_restarts", lr=1e-3, warmup_epochs=0, t_0=10, t_mult=2, eta_min=1e-6)


def test_warm_restarts_are_torchs_own() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2, eta_min=1e-6)
    for step in range(50 * 7):
        reference.step(step / 7)
        assert learning_rate(step, 7, 50, RESTARTS) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_the_reviews_rate_restarts_at_epochs_10_and_30() -> None:
    rates = np.array([learning_rate(step, 100, 50, RESTARTS) for step in range(5000)])
    assert np.flatnonzero(np.diff(rates) > 0).tolist() == [999, 2999]
    np.testing.assert_allclose(rates[[0, 1000, 3000]], 1e-3)
    assert rates[[999, 2999]].max() < 1.1e-6


def test_restarts_begin_after_the_warm_up() -> None:
    warmed = RESTARTS.model_copy(update={"warmup_epochs": 2})
    rates = [learning_rate(step, 100, 50, warmed) for step in range(1400)]
    np.testing.assert_allclose(rates[:200], 1e-3 * np.arange(1, 201) / 200)
    assert rates[200:] == [learning_rate(step, 100, 50, RESTARTS) for step in range(1200)]


def test_a_cycle_that_would_rise_is_refused() -> None:
    with pytest.raises(ValidationError, match="eta_min"):
        OptimizerSettings(schedule="warm_restarts", lr=1e-4, eta_min=1e-3)


def test_steps_fall_by_gamma_at_their_epochs() -> None:
    settings = OptimizerSettings(schedule="step", lr=1e-3, warmup_epochs=0, step_epochs=4, gamma=0.5)
    rates = [learning_rate(step, 5, 10, settings) for step in range(50)]
    np.testing.assert_allclose(rates, [1e-3] * 20 + [5e-4] * 20 + [2.5e-4] * 10)


@pytest.mark.parametrize("schedule", ["cosine", "warm_restarts", "step", "constant"])
def test_every_schedule_warms_up_linearly_to_its_full_rate(schedule: str) -> None:
    settings = OptimizerSettings.model_validate({"schedule": schedule, "warmup_epochs": 0.5, "step_epochs": 5})
    rates = [learning_rate(step, 10, 8, settings) for step in range(6)]
    np.testing.assert_allclose(rates, 1e-4 * np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.0]))


UNEQUAL = (97, 88, 80, 73, 67, 62, 58, 55, 53, 52)  # steps of each epoch, as a falling share of rings makes them


def rates_of_unequal_epochs(settings: OptimizerSettings) -> list[np.ndarray]:
    return [
        np.array([learning_rate(epoch * steps + step, steps, len(UNEQUAL), settings) for step in range(steps)])
        for epoch, steps in enumerate(UNEQUAL)
    ]


def test_a_cosine_over_unequal_epochs_ends_at_its_floor_without_a_jump() -> None:
    rates = np.concatenate(rates_of_unequal_epochs(PLAN.model_copy(update={"warmup_epochs": 2})))
    assert rates[-1] == PLAN.lr * PLAN.final_lr_fraction
    changes, warm = np.diff(rates), UNEQUAL[0] + UNEQUAL[1]
    assert (changes[: warm - 1] > 0).all()
    assert (changes[warm:] < 0).all()
    # One step of the shortest epoch at the steepest place of the warm-up, and of the cosine.
    assert changes.max() <= PLAN.lr / (2 * UNEQUAL[1]) * (1 + 1e-9)
    assert -changes.min() <= PLAN.lr * np.pi / 2 / (8 * UNEQUAL[-1]) * 1.02


def test_restarts_and_steps_keep_to_epochs_of_unequal_length() -> None:
    restarts = RESTARTS.model_copy(update={"t_0": 3.0})
    rising = [epoch for epoch, rates in enumerate(rates_of_unequal_epochs(restarts)) if rates[0] == restarts.lr]
    assert rising == [0, 3, 9]
    falling = OptimizerSettings(schedule="step", lr=1e-3, warmup_epochs=0, step_epochs=4, gamma=0.5)
    for epoch, rates in enumerate(rates_of_unequal_epochs(falling)):
        assert set(rates) == {1e-3 * 0.5 ** (epoch // 4)}


def test_a_constant_rate_stays() -> None:
    settings = OptimizerSettings(schedule="constant", warmup_epochs=0)
    assert {learning_rate(step, 10, 8, settings) for step in range(80)} == {1e-4}


def test_no_warm_up_starts_at_the_full_rate() -> None:
    assert learning_rate(0, 100, 10, OptimizerSettings(warmup_epochs=0)) == pytest.approx(1e-4)


def test_the_average_forgets_the_first_weights_sooner() -> None:
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(10**6, 0.999) == 0.999
