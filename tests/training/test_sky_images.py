"""Training on lenses of the sky, which have neither controls nor hard negatives."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.images.samplers import NEGATIVE, POSITIVE, BatchPlan, epoch_plan
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import load_model
from dark_halo_scope.training import train as command
from dark_halo_scope.training.data import TrainingData
from dark_halo_scope.training.history import read_history
from dark_halo_scope.training.loop import Trainer, TrainingResult

from .toys import sky_settings, sky_split, toy_settings, write_packed, write_toy_split

CPU = torch.device("cpu")


def trained(**changes: Any) -> TrainingResult:
    result = Trainer(sky_settings(**changes), sky_split(24, 48, 1), sky_split(12, 24, 2), CPU, None).run()
    assert result is not None
    return result


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    return trained(epochs=12)


def test_a_network_learns_lenses_of_the_sky(result: TrainingResult) -> None:
    assert result.best["val_auc"] > 0.8
    assert result.best["val_auc"] == max(entry["val_auc"] for entry in result.history)


def test_every_epoch_says_what_the_plan_asks_of_it(result: TrainingResult) -> None:
    for entry in result.history:
        assert entry["val_auc"] == entry["val_auc_negative"]
        tiers = entry["n_tier_a"] * entry["val_auc_tier_a"] + entry["n_tier_b"] * entry["val_auc_tier_b"]
        assert tiers / 12 == pytest.approx(entry["val_auc"])
        for name in ("val_precision_at_recall_0.9", "val_recall_at_precision_0.9", "val_ece", "val_brier", "train_auc"):
            assert 0 <= entry[name] <= 1
        assert entry["prevalence"] == pytest.approx(1 / 3)
        assert set(entry["mean_p"]) == {"positive", "negative"}
        assert entry["losses_compare"] is False


def test_gates_and_the_checkpoints_that_read_them_are_skipped_and_the_reason_recorded(result: TrainingResult) -> None:
    assert all("gates" not in entry for entry in result.history)
    (skipped,) = [record for record in result.decisions if record["kind"] == "skipped"]
    assert "no controls" in skipped["reason"]
    assert not [record for record in result.decisions if record["kind"] == "checkpoint"]
    unmeasured = {check["name"]: check for check in result.history[-1]["checks"] if check["passed"] is None}
    assert "without their arc" in unmeasured["saliency"]["reason"]
    assert {"arc_snr_0_accuracy", "theta_e_auc"} <= set(unmeasured)


def test_history_is_plain_json(result: TrainingResult) -> None:
    json.dumps({"epochs": result.history, "decisions": result.decisions}, allow_nan=False)


def test_batches_are_stratified_in_training() -> None:
    settings = sky_settings()
    data = TrainingData(sky_split(24, 48, 1), settings, CPU)
    assert data.strata is not None
    plans = epoch_plan(settings.sampler, data.pairs_N, data.pool_M, data.variants, 42, 0, data.strata)
    for kind, rows in ((POSITIVE, data.rows), (NEGATIVE, data.pool_rows)):
        keys = [f"{row['nobs_z_bin']} {row['type_bin']}" for row in rows.to_pylist()]
        for key in set(keys):
            counts = [sum(keys[row] == key for row in plan.row_B[plan.kind_B == kind]) for plan in plans]
            assert max(counts) - min(counts) <= 1


def test_weights_and_smoothed_labels_are_those_of_the_tiers() -> None:
    data = TrainingData(sky_split(8, 8, 1), sky_settings(), CPU)
    plan = BatchPlan(
        np.repeat([POSITIVE, NEGATIVE], 8).astype(np.int8),
        np.tile(np.arange(8), 2),
        np.zeros(16, np.int8),
        np.ones(16, np.float32),
        0,
        16,
    )
    batch = data.batch(plan)
    of_b = np.array([tier == "B" for tier in data.rows["tier"].to_pylist()])
    np.testing.assert_allclose(batch.weights[:8].numpy(), np.where(of_b, 0.5, 1.0))
    np.testing.assert_allclose(batch.targets[:8].numpy(), np.where(of_b, 0.95, 1.0))
    assert (batch.weights[8:] == 1).all()
    assert (batch.targets[8:] == 0).all()


def test_a_hard_negative_of_a_lens_of_the_sky_is_no_neighbours_pixels() -> None:
    data = TrainingData(sky_split(8, 8, 1), sky_settings(), CPU)
    for kind in ("control", "hard_negative"):
        with pytest.raises(BadInputError, match=f"Row 0 of kind {kind} was asked for"):
            data.images(kind, np.arange(2))
    assert data.kinds == ("positive", "negative")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"sampler": {"draw": "pairs"}, "loss": {}}, "sampler.draw: pairs"),
        ({"sampler": {"draw": "images"}}, "a share of hard negatives above 0"),
        ({"preprocessing": {"control_source": "matched_lrg"}}, "control_source: matched_lrg"),
        ({"preprocessing": {"control_source": "paired_oracle"}}, "control_source: paired_oracle"),
        ({"validation": {"gates_every": 5}}, "validation.gates_every"),
    ],
)
def test_what_needs_pairs_is_refused_on_lenses_of_the_sky(changes: Mapping[str, Any], what: str) -> None:
    with pytest.raises(BadInputError, match=f"neither controls nor hard negatives, and .*{what}"):
        Trainer(sky_settings(**changes), sky_split(8, 8, 1), sky_split(8, 8, 2), CPU, None)


def test_a_stratum_column_that_rows_lack_is_named() -> None:
    sampler = {**sky_settings().sampler.model_dump(), "stratify": ["none_such"]}
    with pytest.raises(BadInputError, match=r"sampler\.stratify needs the column none_such"):
        TrainingData(sky_split(8, 8, 1), sky_settings(sampler=sampler), CPU)


def test_a_network_that_knows_its_images_by_heart_raises_a_flag() -> None:
    red_flags = {"auc_gap": 0.01, "stop": ["auc_gap"]}
    optimizer = {"lr": 3e-2, "warmup_epochs": 0.5, "schedule": "constant", "clip_norm": None}
    noise = Trainer(
        sky_settings(epochs=30, red_flags=red_flags, optimizer=optimizer, sampler=_small_batches()),
        sky_split(10, 20, 1, arc=0),
        sky_split(12, 24, 2, arc=0),
        CPU,
        None,
    ).run()
    assert noise is not None
    flags = [record for record in noise.decisions if record["name"] == "auc_gap"]
    assert flags
    assert flags[-1]["value"] == pytest.approx(noise.history[-1]["train_auc"] - noise.history[-1]["val_auc"])
    assert noise.decisions[-2]["reason"] == "red flag auc_gap"


def _small_batches() -> dict[str, Any]:
    return {**sky_settings().sampler.model_dump(), "batch_images": 8}


def test_the_command_trains_on_packed_lenses_and_scores_with_trainings_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    splits = {"train": sky_split(12, 24, 1, size=101), "val": sky_split(8, 8, 2, size=101)}
    packed = write_packed(Path("results/datasets/realimage_v1/packed.json"), splits)
    model = {**sky_settings().model.model_dump(), "crop_pix": 64}
    preprocessing = {"normalisation": "training_set", "stretch": "none", "residual": False}
    settings = sky_settings(epochs=1, model=model, preprocessing=preprocessing)
    results = Path("results/real_resnet18/main")
    best, history = results / "best.json", results / "history.json"
    command.main(
        [
            *("--packed", str(packed), "--settings", settings.model_dump_json(), "--device", "cpu", "--threads", "1"),
            *("--output", str(best), "--history", str(history), "--checkpoints", str(results / "checkpoints")),
            *("--generation", "real_resnet18", "--tracking", "none"),
        ]
    )
    network, preprocess, card = load_model(best)
    assert card["stamp_size"] == 101
    train = open_packed(packed, "train")
    pixels = np.concatenate([train.positive, train.negative]).astype(np.float64)
    np.testing.assert_allclose(preprocess.band_mean.numpy(), pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(preprocess.band_std.numpy(), pixels.std((0, 2, 3)), rtol=1e-5)
    val = open_packed(packed, "val")
    logits = predictor(network, preprocess, CPU)(val.positive, val.rows)
    table = read_history(history).table
    assert table["mean_p.positive"][0].as_py() == pytest.approx(float((1 / (1 + np.exp(-logits))).mean()), rel=1e-5)
    assert {"val_auc_tier_a", "val_auc_tier_b", "val_ece"} <= set(read_history(history).summary["epochs"][0])


@pytest.mark.parametrize(
    ("backbone", "crop"), [("resnet18", 64), ("efficientnet_b0", None), ("tf_efficientnetv2_s", None)]
)
def test_each_architecture_of_the_plan_trains_an_epoch_on_101_pixels(backbone: str, crop: int | None) -> None:
    model = {"backbone": backbone, "pretrained": False, "crop_pix": crop, "meta_columns": [], "hidden": 8}
    settings = sky_settings(epochs=1, model=model, sampler=_small_batches())
    run = Trainer(settings, sky_split(2, 6, 1, size=101), sky_split(2, 3, 2, size=101), CPU, None).run()
    assert run is not None
    assert np.isfinite(run.best["val_loss"])


def test_a_split_with_pairs_has_the_numbers_of_pairs_and_none_of_the_sky(tmp_path: Path) -> None:
    settings = toy_settings(epochs=1)
    run = Trainer(
        settings, write_toy_split(tmp_path / "a", 8, 1), write_toy_split(tmp_path / "b", 8, 2), CPU, None
    ).run()
    assert run is not None
    assert not {"val_ece", "prevalence", "train_auc", "val_auc_tier_a"} & set(run.best)
    assert {"val_auc_hard_negative", "gates"} <= set(run.best)
