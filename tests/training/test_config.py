"""The generations' YAML files: the plan's numbers, and a negative control that differs in one thing."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from dark_halo_scope.images.samplers import class_mix
from dark_halo_scope.training.config import TrainSettings


def section(project_root: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((project_root / "config" / "generations" / f"{name}.yaml").read_text())


def test_gen5_prime_has_the_numbers_of_the_plans_table(project_root: Path) -> None:
    settings = TrainSettings.model_validate(section(project_root, "gen5_prime")["training"])
    model, sampler, optimizer = settings.model, settings.sampler, settings.optimizer
    assert (model.backbone, model.pretrained, model.init) == ("convnext_tiny", True, "copy_or_zero")
    assert (model.hidden, model.dropout, len(model.meta_columns)) == (256, 0.1, 2)
    assert (settings.epochs, optimizer.lr, optimizer.weight_decay, optimizer.warmup_epochs) == (30, 1e-4, 0.01, 3)
    assert (sampler.batch_pairs, sampler.pos_prob, sampler.ctrl_prob) == (64, 0.4, 0.4)
    assert class_mix(sampler, 0).hard_negative == pytest.approx(0.5)
    assert class_mix(sampler, 18) == pytest.approx((0.4, 0.4, 0.2, 0.0))
    preprocessing = settings.preprocessing
    assert (preprocessing.clip_low, preprocessing.clip_high) == (-10, 10)
    assert (preprocessing.annulus_inner_pix, preprocessing.residual_sigma_pix) == (16, 3)
    assert settings.validation.gates_every == 5


def test_the_defaults_are_the_plans_too(project_root: Path) -> None:
    assert TrainSettings() == TrainSettings.model_validate(section(project_root, "gen5_prime")["training"])


def test_the_negative_control_differs_in_its_hard_negatives_alone(project_root: Path) -> None:
    control = section(project_root, "gen5_prime_no_hard_negatives")
    assert control["extends"] == control["negative_control_of"] == "gen5_prime"
    none = {"start_hard_negative_prob": 0.0, "end_hard_negative_prob": 0.0}
    assert control["training"] == {"sampler": {"curriculum": none}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 2}, "warmup_epochs"),
        ({"loss": {"pair_ranking": 0.5}}, "per_pair: all"),
        ({"lr": 1e-3}, "Extra inputs"),
        ({"optimizer": {"lr": float("nan")}}, "finite number"),
        (
            {"preprocessing": {"control_source": "azimuthal_median_self"}, "augmentation": {"shift_pix": 2}},
            "shift_pix moves galaxies off the centre",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings.model_validate(wrong)
