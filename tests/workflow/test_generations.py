"""What the generations under config/ are: the seeds' values on DR10, and networks that can be built everywhere."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.samplers import class_mix
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.workflow.config import GenerationFile
from dark_halo_scope.workflow.resolve import load_yaml, resolve

# Generation, stage, dataset, and of its training settings those that the seeds record.
RECORDED: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        *("gen1_resnet18", "main", "v3_color_relaxed"),
        {"model.backbone": "resnet18", "model.stem": "3x3", "optimizer.lr": 3e-4, "optimizer.weight_decay": 0.01}
        | {"epochs": 6, "sampler.batch_images": 512, "loss.kind": "bce", "preprocessing.annulus_inner_pix": 0}
        | {"preprocessing.residual": False, "model.meta_columns": (), "augmentation.dihedral": True},
    ),
    (
        *("gen1_convnext", "main", "v3_color_relaxed"),
        {"model.backbone": "convnext_tiny", "model.stem": "timm", "epochs": 6, "sampler.batch_images": 256}
        | {"model.meta_columns": (), "preprocessing.annulus_inner_pix": 0, "preprocessing.residual": False},
    ),
    (
        *("gen1_resolved", "main", "v3_color_relaxed"),
        {"model.backbone": "convnext_tiny", "epochs": 8, "sampler.batch_images": 256}
        | {"selection.min_theta_over_psf": 0.5, "selection.min_arc_snr_maxpix": None},
    ),
    (
        *("gen2", "main", "v4_sota"),
        {"model.backbone": "convnext_tiny", "loss.kind": "bce", "sampler.batch_images": 512}
        | {"selection.min_theta_over_psf": None},
    ),
    (
        *("gen3", "a1", "v4_sota_moffat"),
        {"optimizer.lr": 3e-4, "selection.min_theta_over_psf": 0.8, "selection.min_arc_snr_maxpix": 7.0},
    ),
    (
        *("gen3", "a2", "v4_sota_moffat"),
        {"optimizer.lr": 1e-4, "selection.min_theta_over_psf": 0.5, "selection.min_arc_snr_maxpix": 3.0},
    ),
    *(
        (
            *("gen3", stage, "v4_sota_moffat"),
            {"model.backbone": "convnext_tiny", "epochs": 6, "sampler.batch_images": 256, "model.dropout": 0.1}
            | {"optimizer.weight_decay": 0.01, "loss.kind": "focal", "loss.focal_alpha": 0.25, "loss.focal_gamma": 2}
            | {"model.meta_columns": ("psfsize_r", "psfdepth_r"), "preprocessing.annulus_inner_pix": 16}
            | {"augmentation.dihedral": True, "precision": "auto"},
        )
        for stage in ("a1", "a2")
    ),
    (
        *("gen4", "main", "v4_sota_moffat"),
        {"loss.kind": "focal", "loss.focal_alpha": 0.25, "loss.focal_gamma": 2, "sampler.mined_repeat": 5}
        | {"selection.min_theta_over_psf": 0.5, "selection.min_arc_snr_maxpix": 3.0, "optimizer.lr": 1e-4, "epochs": 6}
        | {"model.backbone": "convnext_tiny", "model.meta_columns": ("psfsize_r", "psfdepth_r")}
        | {"preprocessing.annulus_inner_pix": 16, "sampler.batch_images": 256},
    ),
    (
        *("gen5_cosmos", "main", "v5_cosmos"),
        {"model.backbone": "convnext_tiny", "sampler.batch_images": 256, "epochs": 50, "selection.negatives": None}
        | {"optimizer.lr": 1e-3, "optimizer.weight_decay": 1e-4, "loss.kind": "bce", "validation.patience": 10},
    ),
    (
        *("gen5_prime", "main", "v5_cosmos_paired"),
        {"model.backbone": "convnext_tiny", "preprocessing.residual": True, "epochs": 30, "optimizer.lr": 1e-4}
        | {"sampler.curriculum.start_hard_negative_prob": 0.5, "sampler.curriculum.end_hard_negative_prob": 0.2}
        | {"sampler.curriculum.anneal_epochs": 18, "sampler.pos_prob": 0.4, "sampler.ctrl_prob": 0.4}
        | {"sampler.batch_pairs": 64, "optimizer.weight_decay": 0.01, "optimizer.warmup_epochs": 3}
        | {"optimizer.schedule": "cosine", "model.pretrained": True, "model.init": "copy_or_zero", "model.hidden": 256}
        | {"model.dropout": 0.1, "model.meta_columns": ("psfsize_r", "psfdepth_r"), "model.fusion": "late"}
        | {"preprocessing.clip_low": -10, "preprocessing.clip_high": 10, "preprocessing.residual_sigma_pix": 3}
        | {"preprocessing.annulus_inner_pix": 16, "validation.gates_every": 5},
    ),
    (
        *("gen5_prime_paired", "main", "v5_cosmos_paired"),
        {"model.backbone": "resnet18", "model.pretrained": False, "optimizer.lr": 1e-3, "optimizer.weight_decay": 1e-4}
        | {"sampler.batch_pairs": 256, "epochs": 50, "optimizer.schedule": "warm_restarts", "optimizer.t_0": 10}
        | {"optimizer.t_mult": 2, "optimizer.eta_min": 1e-6, "validation.patience": 10, "validation.min_delta": 1e-4}
        | {"preprocessing.clip_low": -5, "preprocessing.clip_high": 20, "preprocessing.residual": False}
        | {"preprocessing.control_source": "azimuthal_median_self", "preprocessing.annulus_inner_pix": 16}
        | {"selection.exclude_bricks": ("0460m800", "3252p267"), "sampler.per_pair": "one", "loss.kind": "bce"}
        | {"loss.label_smoothing": {}, "loss.pos_weight": None, "model.init": "kaiming", "augmentation.dihedral": True}
        | {"augmentation.noise_sigma": 0, "validation.monitor": "val_loss", "optimizer.clip_norm": None},
    ),
    *(
        (
            *(name, "main", "realimage_v1"),
            {"sampler.draw": "images", "sampler.stratify": ("nobs_z_bin", "type_bin"), "model.meta_columns": ()}
            | {"loss.kind": "bce", "loss.weight_column": "sample_weight", "loss.label_smoothing": {"B": 0.05}}
            | {"validation.monitor": "val_auc", "validation.gates_every": None, "preprocessing.residual": False}
            | {"optimizer.schedule": "cosine", "optimizer.weight_decay": 0.01, "augmentation.dihedral": True}
            | {"augmentation.shift_pix": 5, "augmentation.noise_sigma": 0.1, "model.pretrained": True}
            | {"sampler.curriculum.start_hard_negative_prob": 0, "sampler.curriculum.end_hard_negative_prob": 0}
            | own,
        )
        for name, own in (
            (
                "real_resnet18",
                {"model.backbone": "resnet18", "model.crop_pix": 64, "sampler.batch_images": 256, "epochs": 40}
                | {"optimizer.lr": 1e-3, "optimizer.final_lr_fraction": 0.01, "optimizer.accumulate": 1},
            ),
            (
                "real_efficientnet_b0",
                {"model.backbone": "efficientnet_b0", "model.crop_pix": None, "sampler.batch_images": 128}
                | {"optimizer.lr": 1e-3, "epochs": 40},
            ),
            (
                "real_efficientnetv2_s",
                {"model.backbone": "tf_efficientnetv2_s", "model.crop_pix": None, "optimizer.lr": 3.88e-4}
                | {"sampler.batch_images": 128, "optimizer.accumulate": 4, "epochs": 160},
            ),
        )
    ),
]


@pytest.fixture(scope="module")
def dr10(project_root: Path) -> dict[str, GenerationFile]:
    return dict(resolve(project_root / "config", "dr10").generations)


def value(settings: Any, path: str) -> Any:
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


@pytest.mark.parametrize(("name", "stage", "dataset", "recorded"), RECORDED)
def test_a_generation_has_the_seeds_values_on_dr10(
    dr10: dict[str, GenerationFile], name: str, stage: str, dataset: str, recorded: dict[str, Any]
) -> None:
    assert dr10[name].dataset == dataset
    training = dr10[name].stage_training(stage)
    assert {path: value(training, path) for path in recorded} == recorded


def test_generations_learn_from_the_false_positives_of_the_one_before(dr10: dict[str, GenerationFile]) -> None:
    assert {name: file.hard_negatives_of for name, file in dr10.items() if file.hard_negatives_of} == {
        "gen3": "gen2",
        "gen4": "gen3",
    }
    assert (dr10["gen2"].mining.top_k, dr10["gen2"].mining.min_score) == (50_000, 0.9)
    assert (dr10["gen3"].mining.top_k, dr10["gen3"].mining.min_score) == (35_000, 0.9)


def test_gen3_goes_on_from_its_first_stage_and_gen4_from_none(dr10: dict[str, GenerationFile]) -> None:
    assert {name: stage.start_from for name, stage in dr10["gen3"].stages.items()} == {"a1": None, "a2": "a1"}
    assert {name: stage.start_from for name, stage in dr10["gen4"].stages.items()} == {"main": None}


def test_finders_of_real_images_are_gated_on_no_pairs_and_in_no_table_of_gates(project_root: Path) -> None:
    """Their scale is measured where a 64-pixel stamp has no pixels, so that they cannot read the pairs."""
    resolved = resolve(project_root / "config", "dr10")
    ungated = {name for name, file in resolved.generations.items() if file.gate_dataset is None}
    assert ungated == {"real_resnet18", "real_efficientnet_b0", "real_efficientnetv2_s"}
    assert not ungated & set(resolved.main_generations)


def test_a_stage_that_is_left_out_is_no_typo_to_an_editor(project_root: Path) -> None:
    schema = json.loads((project_root / "workflow" / "schemas" / "generation.schema.json").read_text())
    gen4 = load_yaml(project_root / "config" / "generations" / "gen4.yaml")
    stages = gen4["stages"]
    assert stages["a1"] is None
    parts = {"$defs": schema["$defs"], **schema["properties"]["stages"]}
    jsonschema.validate(stages, parts)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stages | {"a1": {"epochs": 3}}, parts)


def test_every_network_under_config_can_be_built_and_scores_a_stamp(project_root: Path) -> None:
    networks = {}
    for survey in ("mini", "dr10"):
        for file in resolve(project_root / "config", survey).generations.values():
            for stage in file.stages:
                model, preprocessing = file.stage_training(stage).model, file.stage_training(stage).preprocessing
                drawn = Preprocess6CH(preprocessing, 64)
                # Large networks take seconds to initialise: one of each kind is enough.
                shape = (model.backbone, model.stem, model.fusion)
                networks[shape] = (model, drawn)
    of_real_images = {"resnet18", "efficientnet_b0", "tf_efficientnetv2_s"}
    assert {shape[0] for shape in networks} == {"small_cnn", "convnext_atto", "convnext_tiny"} | of_real_images
    x_B3HW = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) + 1
    for settings, preprocess in networks.values():
        model = LensFinder6CH(settings, preprocess.channels, load_weights=False).eval()
        with torch.inference_mode():
            logit_B = model(preprocess(x_B3HW), torch.ones(1, len(settings.meta_columns)))
        assert torch.isfinite(logit_B).all(), settings.backbone


def test_no_network_of_the_embedded_survey_wants_a_download(project_root: Path) -> None:
    for survey in ("mini", "mini_large"):
        for name, file in resolve(project_root / "config", survey).generations.items():
            for stage in file.stages:
                assert not file.stage_training(stage).model.pretrained, f"{name} on {survey}"


# --- Ablations --------------------------------------------------------------------------------------------------------

CURRICULUM = {f"sampler.curriculum.{name}" for name in ("start_hard_negative_prob", "end_hard_negative_prob")}

# What each ablation changes of its base, and nothing else, on every survey: settings of training, or the dataset.
CHANGED: dict[str, set[str]] = {
    "ablation_centre_degradation": {"augmentation.centre_degradation_probability"},
    "ablation_constant_share": CURRICULUM | {"sampler.curriculum.anneal_epochs"},
    "ablation_early_fusion": {"model.fusion"},
    "ablation_focal": {"loss.kind"},
    "ablation_gaussian_psf": {"dataset"},
    "ablation_no_hard_negatives": CURRICULUM | {"sampler.curriculum.anneal_epochs"},
    "ablation_no_metadata": {"model.meta_columns"},
    "ablation_no_residual": {"preprocessing.residual"},
    "ablation_resnet18": {"model.backbone"},
    # Another dataset, what draws from it, and what lets its classes weigh as the base's do.
    "ablation_unpaired": CURRICULUM
    | {"dataset", "sampler.draw", "sampler.batch_images", "selection.negatives", "loss.pos_weight"},
}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


@pytest.mark.parametrize("survey", ["mini", "mini_large", "dr10"])
def test_each_ablation_changes_one_thing_of_its_base(project_root: Path, survey: str) -> None:
    resolved = resolve(project_root / "config", survey)
    unlike = {"title", "ablation_of", "training"}

    def settings(name: str) -> dict[str, Any]:
        file = resolved.generation(name)
        training = flat(file.stage_training(file.last_stage).model_dump(mode="json"))
        return training | flat(file.model_dump(mode="json", exclude=unlike))

    base, *names = resolved.ablations
    assert set(names) == set(CHANGED)
    before = settings(base)
    for name in names:
        after = settings(name)
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed == CHANGED[name], f"{name} on {survey}"


@pytest.mark.parametrize("survey", ["mini", "mini_large", "dr10"])
@pytest.mark.parametrize("epoch", ["first", "last"])
def test_unpaired_classes_weigh_as_in_the_base(project_root: Path, survey: str, epoch: str) -> None:
    resolved = resolve(project_root / "config", survey)
    base, unpaired = (resolved.generation(name).training for name in ("ablation_base", "ablation_unpaired"))
    manifest = resolved.dataset("v5_cosmos").manifest
    assert manifest is not None
    arcs = round(1000 * (1 - manifest.control_fraction)) * manifest.replicates.train
    controls = round(1000 * manifest.control_fraction)

    def shares(training: TrainSettings, counts: tuple[int, int] | None) -> list[float]:
        sampler = training.sampler
        mix = class_mix(sampler, 0 if epoch == "first" else sampler.curriculum.anneal_epochs, counts)
        weights = [(training.loss.pos_weight or 1) * mix.positive, mix.control + mix.negative, mix.hard_negative]
        return [weight / sum(weights) for weight in weights]

    assert shares(unpaired, (arcs, controls)) == pytest.approx(shares(base, None), abs=1e-4)


@pytest.mark.parametrize("survey", ["mini", "mini_large"])
def test_unpaired_batches_have_as_many_images_as_the_base(project_root: Path, survey: str) -> None:
    resolved = resolve(project_root / "config", survey)
    base, unpaired = (resolved.generation(name).training.sampler for name in ("ablation_base", "ablation_unpaired"))
    assert base.per_pair == "all"
    assert unpaired.batch_images == 3 * base.batch_pairs
