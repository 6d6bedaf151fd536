"""The loop: it learns, it watches itself, and it stops rather than go on with nonsense."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.samplers import ClassMix
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import PairedData
from dark_halo_scope.training.loop import DECISIONS, Trainer, TrainingDivergedError, history_json

from .toys import ToySplit, toy_settings

CPU = torch.device("cpu")
MakeSplit = Callable[..., ToySplit]


def trainer(
    make: MakeSplit, settings: TrainSettings, checkpoints: Path | None = None, pairs: int = 24, arc: float = 8.0
) -> Trainer:
    return Trainer(settings, make("train", pairs, 1, arc=arc), make("val", 16, 2, arc=arc), CPU, checkpoints)


def test_a_small_network_learns_to_tell_arcs_from_rings(toy_split: MakeSplit) -> None:
    settings = toy_settings(epochs=12, sampler={"batch_pairs": 8, "per_pair": "all"})
    result = trainer(toy_split, settings, pairs=96, arc=25.0).run()
    assert result.best["val_auc"] > 0.9
    assert result.best["val_auc_hard_negative"] > 0.7
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_history_and_decisions_are_plain_json(toy_split: MakeSplit) -> None:
    result = trainer(toy_split, toy_settings(validation={"gates_every": 1, "gates": {"min_pairs": 4}})).run()
    text = json.dumps(history_json(result), allow_nan=False)
    history = json.loads(text)
    assert [entry["epoch"] for entry in history["epochs"]] == [0, 1]
    assert set(history["epochs"][0]["gates"]["gates"]) == {"G1", "G2", "G3", "G4", "G5"}
    assert {"day 3", "day 5", "end of training"} <= {record["name"] for record in history["decisions"]}
    assert history["epochs"][0]["class_mix"]["hard_negative"] == 0.5


def test_the_same_settings_give_the_same_network_and_another_seed_another(toy_split: MakeSplit) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = trainer(toy_split, toy_settings(epochs=1, seed=seed)).run().model
        return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_best_epoch_is_kept_not_the_last(toy_split: MakeSplit) -> None:
    result = trainer(toy_split, toy_settings(epochs=4)).run()
    losses = [entry["val_loss"] for entry in result.history]
    assert result.best["val_loss"] == min(losses)


def test_no_improvement_ends_training_early_and_says_why(toy_split: MakeSplit) -> None:
    settings = toy_settings(epochs=30, validation={"patience": 1, "min_delta": 10.0, "gates_every": None})
    result = trainer(toy_split, settings).run()
    assert len(result.history) == 2
    (end,) = [record for record in result.decisions if record["kind"] == "end"]
    assert "no better val_loss in 1 epochs" in end["reason"]


def test_a_red_flag_stops_where_configured(toy_split: MakeSplit) -> None:
    flags = {"after_epoch": 0, "hard_negative_mean_p": 0.0, "stop": ("hard_negative_mean_p",)}
    result = trainer(toy_split, toy_settings(epochs=5, red_flags=flags)).run()
    assert len(result.history) == 1
    goes_on = trainer(toy_split, toy_settings(epochs=2, red_flags=flags | {"stop": ()})).run()
    assert len(goes_on.history) == 2


def test_a_loss_that_is_not_finite_stops_with_the_batchs_ids_and_keeps_the_last_good_checkpoint(
    toy_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(epochs=3, sampler={"batch_pairs": 8, "per_pair": "all"})
    run = trainer(toy_split, settings, tmp_path / "checkpoints")
    forward = type(run.model).forward

    def poisoned(self: torch.nn.Module, x: torch.Tensor, meta: torch.Tensor) -> torch.Tensor:
        logits = forward(self, x, meta)  # type: ignore[arg-type]
        return logits * float("nan") if self.training and run.state.step == 4 else logits

    monkeypatch.setattr(type(run.model), "forward", poisoned)
    with pytest.raises(TrainingDivergedError, match=r"epoch 2, step 4.*8 pairs: task-1-") as error:
        run.run()
    assert len(set(str(error.value).split("task-1-"))) == 9
    records = json.loads((tmp_path / "checkpoints" / DECISIONS).read_text())
    assert records[-1]["name"] == "nan"
    assert len(records[-1]["task_ids"]) == 8
    monkeypatch.undo()
    resumed = trainer(toy_split, settings, tmp_path / "checkpoints")
    assert resumed.state.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in resumed.model.state_dict().values())


def test_an_image_that_is_not_finite_is_reported_with_its_batch(toy_split: MakeSplit) -> None:
    train, val = toy_split("train", 8, 1), toy_split("val", 8, 2)
    broken = np.array(train.positive)
    broken[3, 1, 10, 10] = np.nan
    run = Trainer(toy_settings(), ToySplit(broken, train.control, train.hard_negative, train.rows), val, CPU, None)
    with pytest.raises(BadInputError, match="task-1-0003"):
        run.run()


def test_all_images_of_a_pair_weigh_what_their_class_probabilities_say(toy_split: MakeSplit) -> None:
    data = PairedData(toy_split("train", 6, 1), ("psfsize_r",), CPU)
    batch = data.batch_all(np.arange(2, 6), ClassMix(0.4, 0.35, 0.25))
    assert batch.images.shape == (12, 3, 64, 64)
    weights = batch.weights.view(3, 4)
    torch.testing.assert_close(weights.sum(1) / weights.sum(), torch.tensor([0.4, 0.35, 0.25]))
    assert weights.mean().item() == pytest.approx(1)
    assert batch.labels.view(3, 4).tolist() == [[1.0] * 4, [0.0] * 4, [0.0] * 4]
    assert batch.rows.tolist() == [2, 3, 4, 5] * 3


def test_a_kind_of_probability_zero_is_not_shown(toy_split: MakeSplit) -> None:
    data = PairedData(toy_split("train", 6, 1), (), CPU)
    batch = data.batch_all(np.arange(4), ClassMix(0.5, 0.5, 0.0))
    assert len(batch.images) == 8
    assert batch.weights.tolist() == [1.0] * 8
    none = {"start_hard_negative_prob": 0.0, "end_hard_negative_prob": 0.0}
    sampler = {"batch_pairs": 8, "per_pair": "all", "curriculum": none}
    assert trainer(toy_split, toy_settings(epochs=1, sampler=sampler, loss={"pair_ranking": 0.5})).run().history


def test_one_image_of_each_pair_is_the_one_drawn(toy_split: MakeSplit) -> None:
    split = toy_split("train", 6, 1)
    batch = PairedData(split, ("psfsize_r",), CPU).batch_one(np.arange(6), np.array([2, 0, 1, 0, 2, 1]))
    kinds = {1: split.positive, 3: split.positive, 2: split.control, 5: split.control}
    for image, label, row in zip(batch.images, batch.labels, batch.rows, strict=True):
        expected = kinds.get(int(row), split.hard_negative)[int(row)]
        np.testing.assert_array_equal(image.numpy(), expected.astype(np.float32))
        assert label.item() == float(row in (1, 3))


@pytest.mark.parametrize("per_pair", ["one", "all"])
def test_further_hard_negatives_are_shown_where_they_are_chosen(toy_split: MakeSplit, per_pair: str) -> None:
    split = toy_split("train", 6, 1)
    second = np.array(split.hard_negative) + np.float16(1)
    data = PairedData(
        ToySplit(split.positive, split.control, split.hard_negative, split.rows, {"second": second}), (), CPU
    )
    assert data.hard_negatives == 2
    rows, variants = np.arange(6), np.array([0, 1, 1, 0, 1, 0])
    if per_pair == "all":
        images = data.batch_all(rows, ClassMix(0.4, 0.35, 0.25), variants).images[12:]
    else:
        images = data.batch_one(rows, np.full(6, 2), variants).images
    expected = np.where(variants[:, None, None, None] == 1, second, split.hard_negative).astype(np.float32)
    np.testing.assert_array_equal(images.numpy(), expected)


def test_arrays_that_do_not_belong_together_are_refused(toy_split: MakeSplit) -> None:
    split = toy_split("train", 6, 1)
    with pytest.raises(BadInputError, match="as many images"):
        PairedData(ToySplit(split.positive[:5], split.control, split.hard_negative, split.rows), (), CPU)
    empty = ToySplit(split.positive[:0], split.control[:0], split.hard_negative[:0], split.rows.slice(0, 0))
    with pytest.raises(BadInputError, match="and some"):
        PairedData(empty, (), CPU)


def test_one_image_per_pair_trains_too(toy_split: MakeSplit) -> None:
    result = trainer(toy_split, toy_settings(sampler={"batch_pairs": 8, "per_pair": "one"})).run()
    assert len(result.history) == 2


def test_progress_is_one_line_per_epoch(toy_split: MakeSplit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        trainer(toy_split, toy_settings()).run()
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Epoch 2/2: loss")]
    assert len(lines) == 1
    assert "images/s" in lines[0]
