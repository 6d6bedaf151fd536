"""Checks after every epoch: each passes, fails and says when it could not be measured."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.training.config import DiagnosticSettings
from dark_halo_scope.training.diagnostics import epoch_checks, failed, gradient_norms, is_due, saliency_check

SETTINGS = DiagnosticSettings()
ROWS = pa.table({"brickname": ["0001m002"] * 100, "theta_e_arcsec": [1.0] * 100, "arc_snr": [20.0] * 100})
NO_ROWS = ROWS.slice(0, 0)
MIX = {"positive": 0.4, "control": 0.4, "hard_negative": 0.2, "negative": 0.0}
RNG = np.random.default_rng(1)
LOGITS = {
    "positive": RNG.normal(2, 2, 100),
    "control": RNG.normal(-2, 2, 100),
    "hard_negative": RNG.normal(-2, 2, 100),
}


def entry(epoch: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 10 * (epoch + 1),
        "class_mix": MIX,
        "train_loss": 0.4,
        "losses_compare": True,
        "val_loss": 0.45,
        "val_loss_epoch_mix": 0.45,
        "val_auc": 0.95,
        "gradient_norm_max": 2.0,
        "gradient_norms": {"backbone.stages.0": 0.1, "backbone.stages.1": 1.0, "meta": 0.2, "head": 3.0},
        "learning_rate": 1e-4,
        "learning_rate_scheduled": 1e-4,
        **changes,
    }


def check(name: str, now: dict[str, Any], history: list[dict[str, Any]] | None = None, **options: Any) -> Any:
    logits = options.pop("logits", LOGITS)
    settings = options.pop("settings", SETTINGS)
    checks = epoch_checks(logits, ROWS, NO_ROWS, now, history or [], settings, **options)
    (found,) = [record for record in checks if record["name"] == name]
    return found


def test_a_gap_to_a_loss_of_smoothed_labels_is_no_measurement() -> None:
    assert check("loss_gap", entry())["passed"] is True
    other = check("loss_gap", entry(losses_compare=False))
    assert other["passed"] is None
    assert "smooths labels" in other["reason"]


def test_every_check_says_what_was_measured_on_how_many_against_what() -> None:
    for record in epoch_checks(LOGITS, ROWS, NO_ROWS, entry(4), [], SETTINGS, last=True):
        assert {"kind", "name", "epoch", "value", "n", "criterion", "passed"} <= set(record)
        assert record["epoch"] == 4
        assert (record["passed"] is None) == ("reason" in record)


def test_the_checks_of_every_epoch_are_those_of_the_review() -> None:
    names = {record["name"] for record in epoch_checks(LOGITS, ROWS, NO_ROWS, entry(), [], SETTINGS)}
    assert names == {
        *("val_loss_improves", "loss_gap", "val_auc_improves", "val_auc"),
        *("gradient_norm", "learning_rate", "early_gradient"),
        *("accuracy_positive", "accuracy_control", "accuracy_hard_negative"),
    }


def test_the_others_come_every_ten_epochs_and_after_the_last() -> None:
    extra = {"arc_snr_0_accuracy", "brick_auc_std", "theta_e_auc", "fp_fn_ratio", "ece"}

    def names(epoch: int, last: bool = False) -> set[str]:
        return {record["name"] for record in epoch_checks(LOGITS, ROWS, NO_ROWS, entry(epoch), [], SETTINGS, last)}

    assert [epoch for epoch in range(25) if extra <= names(epoch)] == [9, 19]
    assert not extra & names(8)
    assert extra <= names(3, last=True)


@pytest.mark.parametrize(("every", "due"), [(10, [9, 19]), (1, list(range(20))), (None, [])])
def test_cadence_counts_epochs_from_1(every: int | None, due: list[int]) -> None:
    assert [epoch for epoch in range(20) if is_due(epoch, every, last=False)] == due


def test_nothing_is_due_after_the_last_epoch_where_it_is_turned_off() -> None:
    assert is_due(3, 10, last=True)
    assert not is_due(3, None, last=True)


@pytest.mark.parametrize(("name", "key", "worse"), [("val_loss", "val_loss", 0.1), ("val_auc", "val_auc", -0.1)])
def test_no_better_value_in_ten_epochs_fails(name: str, key: str, worse: float) -> None:
    best = entry(0)
    history = [best, *(entry(epoch, **{key: best[key] + worse}) for epoch in range(1, 11))]
    assert check(f"{name}_improves", history[9], history)["passed"] is True
    late = check(f"{name}_improves", history[10], history)
    assert late["passed"] is False
    assert late["value"] == 10


def test_epochs_after_this_one_do_not_count() -> None:
    history = [entry(epoch, val_loss=1.0 - 0.01 * epoch) for epoch in range(30)]
    assert check("val_loss_improves", history[3], history)["value"] == 0


@pytest.mark.parametrize(("loss", "passed"), [(0.49, True), (0.51, False), (0.1, True)])
def test_a_gap_of_a_tenth_to_the_training_loss_fails(loss: float, passed: bool) -> None:
    gap = check("loss_gap", entry(val_loss_epoch_mix=loss))
    assert gap["passed"] is passed
    assert gap["value"] == pytest.approx(loss - 0.4)
    assert gap["n"] == 300


@pytest.mark.parametrize(
    ("epoch", "auc", "passed"), [(3, 0.95, True), (18, 0.85, None), (19, 0.85, False), (30, 0.91, True)]
)
def test_the_auc_must_exceed_nine_tenths_by_epoch_20(epoch: int, auc: float, passed: bool | None) -> None:
    assert check("val_auc", entry(epoch, val_auc=auc))["passed"] is passed


@pytest.mark.parametrize(("norm", "passed"), [(9.9, True), (10.1, False)])
def test_a_gradient_that_explodes_in_one_step_fails(norm: float, passed: bool) -> None:
    record = check("gradient_norm", entry(1, gradient_norm_max=norm), [entry(0)])
    assert record["passed"] is passed
    assert record["n"] == 10


@pytest.mark.parametrize(("used", "passed"), [(1e-4, True), (1.001e-4, False)])
def test_a_rate_beside_the_schedule_fails(used: float, passed: bool) -> None:
    assert check("learning_rate", entry(learning_rate=used))["passed"] is passed


@pytest.mark.parametrize(("first", "passed"), [(0.1, True), (1e-4, False)])
def test_a_gradient_that_vanishes_before_the_first_layers_fails(first: float, passed: bool) -> None:
    norms = {"backbone.stages.0": first, "backbone.stages.1": 1.0, "head": 1e4}
    assert check("early_gradient", entry(gradient_norms=norms))["passed"] is passed


def test_what_the_loop_did_not_record_is_not_passed() -> None:
    bare = {name: value for name, value in entry().items() if not name.startswith(("gradient", "learning"))}
    for name in ("gradient_norm", "learning_rate", "early_gradient"):
        assert check(name, bare)["passed"] is None


def test_a_class_that_is_always_right_fails_and_few_images_say_so() -> None:
    perfect = {**LOGITS, "control": np.full(100, -3.0)}
    assert check("accuracy_control", entry(), logits=perfect)["passed"] is False
    assert check("accuracy_control", entry(), logits=perfect)["value"] == 1.0
    assert check("accuracy_positive", entry(), logits=perfect)["passed"] is True
    few = check("accuracy_control", entry(), logits={**LOGITS, "control": np.full(19, -3.0)})
    assert few["passed"] is None
    assert few["reason"] == "19 images, fewer than 20"


def test_accuracies_count_the_right_side_of_one_half() -> None:
    logits = {"positive": np.repeat([1.0, -1.0], [30, 70]), "control": np.repeat([1.0, -1.0], [30, 70])}
    assert check("accuracy_positive", entry(), logits=logits)["value"] == pytest.approx(0.3)
    assert check("accuracy_control", entry(), logits=logits)["value"] == pytest.approx(0.7)


def test_failed_checks_are_those_that_were_measured() -> None:
    checks = epoch_checks(LOGITS, ROWS, NO_ROWS, entry(val_auc=0.5, gradient_norm_max=99.0), [], SETTINGS)
    assert {record["name"] for record in failed(checks)} == {"gradient_norm"}


@pytest.mark.parametrize(
    ("value", "high", "n", "passed"),
    [
        (0.30, 0.27, 60, True),
        (0.30, 0.31, 60, False),  # any network of this kind may look there
        (0.15, 0.10, 60, False),  # elsewhere all the same
        (0.30, 0.10, 19, None),
    ],
)
def test_saliency_must_exceed_the_area_and_untrained_networks(
    value: float, high: float, n: int, passed: bool | None
) -> None:
    record = saliency_check(9, {"value": value, "untrained_high": high, "area": 0.2, "n": n}, SETTINGS)
    assert record["passed"] is passed
    assert record["area"] == 0.2


def test_saliency_of_nothing_is_not_measured() -> None:
    share = {"value": None, "untrained_high": None, "area": None, "n": 0}
    assert saliency_check(9, share, SETTINGS)["passed"] is None


def small_network(meta_columns: tuple[str, ...] = ("psfsize_r",)) -> LensFinder6CH:
    settings = ModelSettings(backbone="small_cnn", width=4, hidden=8, pretrained=False, meta_columns=meta_columns)
    torch.manual_seed(1)
    return LensFinder6CH(settings, 6)


def test_gradient_norms_follow_the_network_from_its_first_layer_to_its_head() -> None:
    model = small_network()
    model(torch.randn(4, 6, 32, 32), torch.randn(4, 1)).sum().backward()
    norms = gradient_norms(model)
    assert list(norms) == [*(f"backbone.stages.{stage}" for stage in range(4)), "meta", "head"]
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    everything = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert total == pytest.approx(everything.norm().item(), rel=1e-5)
    stem = torch.cat([p.grad.flatten() for p in model.backbone.stages[0].parameters()])  # type: ignore[union-attr, index]
    assert norms["backbone.stages.0"] == pytest.approx(stem.norm().item(), rel=1e-5)


def test_gradient_norms_name_the_same_depths_in_a_wrapped_network() -> None:
    model = small_network(())
    model(torch.randn(4, 6, 32, 32), torch.empty(4, 0)).sum().backward()
    wrapped = nn.Sequential()
    wrapped.add_module("_orig_mod", model)
    assert list(gradient_norms(wrapped)) == list(gradient_norms(model))


def test_a_network_without_gradients_has_no_norms_and_nan_shows() -> None:
    model = small_network()
    assert gradient_norms(model) == {}
    model(torch.randn(4, 6, 32, 32), torch.randn(4, 1)).sum().backward()
    parameter = next(iter(model.head.parameters()))
    assert parameter.grad is not None
    parameter.grad[0] = float("nan")
    assert np.isnan(gradient_norms(model)["head"])
