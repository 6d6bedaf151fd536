"""Validation: every kind of image scored once, in order, and summed up as training mixes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.samplers import ClassMix, SamplerSettings
from dark_halo_scope.training.config import LossSettings
from dark_halo_scope.training.data import TrainingData
from dark_halo_scope.training.validation import (
    mixed_loss,
    score_split,
    val_auc_against,
    validation_metrics,
    validation_rows,
)

from .toys import ToySplit, toy_rows, toy_settings

MakeSplit = Callable[..., ToySplit]
CPU = torch.device("cpu")
POOLED: dict[str, Any] = {"sampler": {"draw": "images", "batch_images": 8}}


class Recorded:
    """A network whose logit is an image's mean, and what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[NDArray[Any], pa.Table, NDArray[Any]]] = []

    def __call__(
        self, images: NDArray[np.floating], rows: pa.Table, controls: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        assert controls is not None
        self.calls.append((images, rows, controls))
        return images.mean((1, 2, 3)).astype(np.float64)


def with_pool(split: ToySplit, count: int) -> ToySplit:
    pool = np.random.default_rng(5).normal(0, 1, (count, 3, 64, 64)).astype(np.float16)
    return ToySplit(
        split.positive, split.control, split.hard_negative, split.rows, {}, pool, toy_rows("negative", count, 3)
    )


def test_every_image_of_every_kind_is_scored_once_in_order(toy_split: MakeSplit) -> None:
    split = with_pool(toy_split("val", 10, 2), 7)
    data = TrainingData(split, toy_settings(**POOLED), CPU)
    advanced: list[int] = []
    logits = score_split(Recorded(), data, 4, None, advanced.append)
    assert list(logits) == ["positive", "control", "hard_negative", "negative"]
    for kind, values in logits.items():
        images = np.asarray(getattr(split, kind), dtype=np.float32)
        np.testing.assert_array_equal(values, images.mean((1, 2, 3)).astype(np.float64))
    assert sum(advanced) == 17


def test_images_come_with_their_rows_and_their_own_controls(toy_split: MakeSplit) -> None:
    split = with_pool(toy_split("val", 5, 2), 3)
    recorded = Recorded()
    score_split(recorded, TrainingData(split, toy_settings(**POOLED), CPU), 8, None, lambda count: None)
    *of_pairs, of_pool = recorded.calls
    assert len(of_pairs) == 3
    for _, rows, controls in of_pairs:
        assert rows.column("task_id").to_pylist() == split.rows.column("task_id").to_pylist()
        np.testing.assert_array_equal(controls, np.asarray(split.control, dtype=np.float32))
    images, rows, controls = of_pool
    assert rows.column("task_id").to_pylist() == split.negative_rows.column("task_id").to_pylist()
    np.testing.assert_array_equal(controls, images)


def test_a_cut_takes_pairs_and_pool_evenly_and_says_which(toy_split: MakeSplit) -> None:
    split = with_pool(toy_split("val", 10, 2), 7)
    data = TrainingData(split, toy_settings(**POOLED), CPU)
    pairs, pool = validation_rows(data, 4)
    assert pairs.tolist() == [0, 3, 6, 9]
    assert pool.tolist() == [0, 2, 4, 6]
    logits = score_split(Recorded(), data, 3, 4, lambda count: None)
    expected = np.asarray(split.positive[pairs], dtype=np.float32).mean((1, 2, 3))
    np.testing.assert_array_equal(logits["positive"], expected.astype(np.float64))
    assert {kind: len(values) for kind, values in logits.items()} == dict.fromkeys(logits, 4)


def test_without_a_pool_there_are_no_logits_of_one(toy_split: MakeSplit) -> None:
    logits = score_split(
        Recorded(), TrainingData(toy_split("val", 5, 2), toy_settings(), CPU), 8, None, lambda count: None
    )
    assert list(logits) == ["positive", "control", "hard_negative"]


LOGITS = {
    "positive": np.array([2.0, 1.0, -1.0]),
    "control": np.array([-2.0, 1.5, -3.0]),
    "hard_negative": np.array([0.0, 3.0, -3.0]),
    "negative": np.array([-5.0, -4.0, -3.0, 0.5]),
}
MIX = ClassMix(0.4, 0.3, 0.1, 0.2)


def test_the_loss_weighs_kinds_as_training_shows_them() -> None:
    def mean(kind: str, sign: float) -> float:
        return float(np.log1p(np.exp(-sign * LOGITS[kind])).mean())

    expected = 0.4 * mean("positive", 1) + 0.3 * mean("control", -1)
    expected += 0.1 * mean("hard_negative", -1) + 0.2 * mean("negative", -1)
    assert mixed_loss(LOGITS, MIX, LossSettings()) == pytest.approx(expected)


def test_metrics_compare_positives_with_the_negatives_that_training_shows() -> None:
    without = {kind: values for kind, values in LOGITS.items() if kind != "negative"}
    paired = validation_metrics(without, ClassMix(0.5, 0.4, 0.1), ClassMix(0.4, 0.4, 0.2), LossSettings())
    # Of nine comparisons: 2 beats all three controls, 1 beats two, -1 beats two.
    assert paired["val_auc"] == pytest.approx(7 / 9)
    assert "val_auc_negative" not in paired
    assert set(paired["mean_p"]) == {"positive", "control", "hard_negative"}
    assert paired["hard_negative_fpr_at_0.5"] == pytest.approx(2 / 3)
    assert paired["val_loss"] != paired["val_loss_epoch_mix"]
    unpaired = validation_metrics(LOGITS, MIX, MIX, LossSettings(), "negative")
    # 2 and 1 beat all four, -1 beats three.
    assert unpaired["val_auc"] == unpaired["val_auc_negative"] == pytest.approx(11 / 12)
    assert set(unpaired["mean_p"]) == set(LOGITS)


def test_a_generation_is_judged_against_what_it_trains_on() -> None:
    assert val_auc_against(SamplerSettings()) == "control"
    assert val_auc_against(SamplerSettings(draw="images")) == "negative"


def test_a_validation_split_without_what_training_shows_is_refused() -> None:
    without = {kind: values for kind, values in LOGITS.items() if kind != "negative"}
    with pytest.raises(BadInputError, match="negative images and the validation split has none"):
        mixed_loss(without, MIX, LossSettings())
    with pytest.raises(BadInputError, match="negative images and the validation split has none"):
        validation_metrics(without, ClassMix(0.5, 0.4, 0.1), ClassMix(0.5, 0.4, 0.1), LossSettings(), "negative")
