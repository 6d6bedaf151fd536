"""Training data: the right pixels and numbers for every plan, in order, from any number of threads, or an error."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.samplers import (
    CONTROL,
    HARD_NEGATIVE,
    KINDS,
    NEGATIVE,
    POSITIVE,
    BatchPlan,
    SelectionSettings,
    class_mix,
    epoch_plan,
)
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch, TrainingData, _copied, prefetch, select_pairs

from .toys import ToySplit, toy_settings

CPU = torch.device("cpu")
MakeSplit = Callable[..., ToySplit]
IMAGES = {"draw": "images", "batch_images": 8}


@dataclass(frozen=True)
class Mined:
    """Hard negatives as an earlier generation leaves them."""

    images: NDArray[np.float16]
    rows: pa.Table


def mined(count: int) -> Mined:
    values = np.arange(1000, 1000 + count, dtype=np.float16)[:, None, None, None]
    rows = {"task_id": [f"mined-{index}" for index in range(count)], "control_kind": ["hard_mined"] * count}
    rows |= {"psfsize_r": np.full(count, 1.2), "psfdepth_r": np.full(count, 24.0), "brickname": ["0005m002"] * count}
    rows |= {"ra": 200 + np.arange(count) / 1e3, "dec": np.full(count, -30.0)}
    return Mined(np.broadcast_to(values, (count, 3, 64, 64)).copy(), pa.table(rows))


def plans_of(data: TrainingData, settings: TrainSettings, epoch: int = 0) -> list[BatchPlan]:
    return epoch_plan(settings.sampler, data.pairs_N, data.pool_M, data.variants, settings.seed, epoch)


def plan_of(*images: tuple[int, int, int]) -> BatchPlan:
    """A plan of (kind, row, variant)."""
    kind, row, variant = np.array(images).T
    weight = np.ones(len(images), np.float32)
    return BatchPlan(kind.astype(np.int8), row, variant.astype(np.int8), weight, 0, len(images))


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    """The rows with a column more, or with another one."""
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows.append_column(name, pa.array(values))


@pytest.mark.parametrize("sampler", [{"per_pair": "all"}, {"per_pair": "one"}, IMAGES, {"negative_prob": 0.3}])
def test_every_image_of_an_epoch_is_the_one_that_its_plan_names(
    toy_split: MakeSplit, sampler: dict[str, object]
) -> None:
    split = toy_split("train", 20, 1, negatives=9)
    split = replace(split, extra={"second": np.array(split.hard_negative) + np.float16(1)})
    settings = toy_settings(sampler={"batch_pairs": 8, **sampler})
    hard = mined(4)
    data = TrainingData(split, settings, CPU, hard if settings.sampler.uses_pool else None)
    arrays = {POSITIVE: [split.positive], CONTROL: [split.control]}
    arrays[HARD_NEGATIVE] = [split.hard_negative, split.extra["second"]]
    arrays[NEGATIVE] = [np.concatenate([split.negative, hard.images])]
    psfsize = {False: split.rows, True: pa.concat_tables([split.negative_rows, hard.rows], promote_options="default")}
    seen: Counter[int] = Counter()
    for plan in plans_of(data, settings):
        batch = data.batch(plan)
        for index, (kind, row, variant) in enumerate(zip(plan.kind_B, plan.row_B, plan.variant_B, strict=True)):
            expected = arrays[int(kind)][variant][row].astype(np.float32)
            np.testing.assert_array_equal(batch.images[index].numpy(), expected)
            assert batch.labels[index].item() == batch.targets[index].item() == float(kind == POSITIVE)
            meta = psfsize[bool(kind == NEGATIVE)]["psfsize_r"][int(row)].as_py()
            assert batch.meta[index, 0].item() == pytest.approx(meta)
            seen[int(kind)] += 1
        np.testing.assert_array_equal(batch.weights.numpy(), plan.weight_B)
        assert (batch.pairs, batch.total, batch.controls) == (plan.pairs, plan.total, None)
    assert set(seen) == {k for k, share in enumerate(class_mix(settings.sampler, 0, (20, 13))) if share}


def test_the_parts_of_ranks_are_the_whole_batch(toy_split: MakeSplit) -> None:
    settings = toy_settings(sampler={"per_pair": "all", "batch_pairs": 9, "negative_prob": 0.2})
    data = TrainingData(toy_split("train", 20, 1, negatives=6), settings, CPU)
    for plan in plans_of(data, settings):
        whole, parts = data.batch(plan), [data.batch(plan.shard(rank, 2)) for rank in range(2)]
        places = torch.from_numpy(np.concatenate([plan.places(rank, 2) for rank in range(2)]))
        for name in ("images", "meta", "labels", "weights"):
            torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)[places])
        assert [part.total for part in parts] == [whole.total] * 2


def test_own_controls_come_where_they_are_asked_for(toy_split: MakeSplit) -> None:
    settings = toy_settings(sampler={"per_pair": "all", "batch_pairs": 8, "negative_prob": 0.3})
    split = toy_split("train", 8, 1, negatives=9)
    data = TrainingData(split, settings, CPU, controls=True)
    (plan,) = plans_of(data, settings)
    batch = data.batch(plan)
    assert batch.controls is not None
    expected = split.control[plan.row_B[:24]].astype(np.float32)
    np.testing.assert_array_equal(batch.controls[:24].numpy(), expected)
    torch.testing.assert_close(batch.controls[24:], batch.images[24:])
    assert len(batch.images) > 24


@pytest.mark.parametrize(("workers", "depth"), [(0, 2), (1, 0), (1, 2), (3, 4)])
def test_batches_come_in_order_from_any_number_of_threads(toy_split: MakeSplit, workers: int, depth: int) -> None:
    settings = toy_settings(sampler={"per_pair": "one", "batch_pairs": 3})
    data = TrainingData(toy_split("train", 40, 1), settings, CPU)
    plans = plans_of(data, settings)
    batches = list(prefetch(data, plans, workers, depth))
    assert len(batches) == len(plans)
    for plan, batch in zip(plans, batches, strict=True):
        assert torch.equal(batch.images, data.batch(plan).images)


def test_the_curriculum_reaches_every_thread(toy_split: MakeSplit) -> None:
    """The earlier pipeline's persistent workers kept the share of hard negatives that they were started with."""
    curriculum = {"start_hard_negative_prob": 0.9, "end_hard_negative_prob": 0.0, "anneal_epochs": 3}
    settings = toy_settings(sampler={"per_pair": "all", "batch_pairs": 5, "curriculum": curriculum})
    data = TrainingData(toy_split("train", 20, 1), settings, CPU)
    for epoch, share in enumerate((0.9, 0.6, 0.3, 0.0)):
        for batch in prefetch(data, plans_of(data, settings, epoch), workers=3):
            hard = batch.weights[batch.labels == 0].view(-1, batch.pairs)[1:]
            assert hard.sum() / batch.weights.sum() == pytest.approx(share)


def test_threads_end_with_the_iterator(toy_split: MakeSplit) -> None:
    settings = toy_settings(sampler={"per_pair": "one", "batch_pairs": 2})
    data = TrainingData(toy_split("train", 40, 1), settings, CPU)
    before = threading.active_count()
    batches = prefetch(data, plans_of(data, settings), workers=3)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_row_that_cannot_be_read_is_an_error_in_its_turn_and_nothing_takes_its_place(toy_split: MakeSplit) -> None:
    """The earlier pipeline answered with a neighbour."""
    settings = toy_settings(sampler={"per_pair": "one", "batch_pairs": 5})
    data = TrainingData(toy_split("train", 10, 1), settings, CPU)
    good = plans_of(data, settings)
    batches = prefetch(data, [*good, plan_of((CONTROL, 3, 0), (POSITIVE, 10, 0)), *good])
    for _ in good:
        assert isinstance(next(batches), Batch)
    with pytest.raises(BadInputError, match="Row 10 of kind positive was asked for, which the split does not have"):
        next(batches)


@pytest.mark.parametrize("image", [(POSITIVE, -1, 0), (HARD_NEGATIVE, 2, 1), (NEGATIVE, 5, 0), (NEGATIVE, -1, 0)])
def test_rows_and_variants_outside_the_arrays_are_refused(toy_split: MakeSplit, image: tuple[int, int, int]) -> None:
    data = TrainingData(toy_split("train", 10, 1, negatives=5), toy_settings(sampler=IMAGES), CPU)
    with pytest.raises(BadInputError, match=f"Row {image[1]} of kind {KINDS[image[0]]} was asked for"):
        data.batch(plan_of((POSITIVE, 0, 0), image))


def test_arcs_that_are_too_small_or_too_faint_and_bricks_are_left_out(toy_split: MakeSplit) -> None:
    rows = toy_split("train", 5, 1).rows.select(["task_id"])
    rows = with_column(rows, "theta_e_arcsec", [0.5, 1.0, 2.0, None, 2.0])
    rows = with_column(rows, "psfsize_r", [1.0, 1.0, 1.0, 1.0, 0.0])
    rows = with_column(rows, "arc_snr_maxpix", [9.0, 2.0, 7.0, 9.0, None])
    rows = with_column(rows, "brickname", ["a", "b", "a", "c", "d"])

    def chosen(**values: object) -> list[int]:
        return select_pairs(rows, SelectionSettings.model_validate(values)).tolist()

    assert chosen() == [0, 1, 2, 3, 4]
    assert chosen(min_theta_over_psf=1.0) == [1, 2]
    assert chosen(min_arc_snr_maxpix=7.0) == [0, 2, 3]
    assert chosen(min_theta_over_psf=0.5, min_arc_snr_maxpix=7.0, exclude_bricks=["c"]) == [0, 2]
    assert chosen(exclude_bricks=["a", "d"]) == [1, 3]


def test_training_uses_what_is_selected_and_nothing_else(toy_split: MakeSplit) -> None:
    split = toy_split("train", 12, 1, negatives=8)
    split = replace(
        split,
        rows=with_column(split.rows, "arc_snr_maxpix", np.arange(12.0)),
        negative_rows=with_column(split.negative_rows, "control_kind", ["unpaired", "ring_proxy"] * 4),
    )
    selection = {"min_arc_snr_maxpix": 7.0, "negatives": ["ring_proxy"]}
    settings = toy_settings(sampler=IMAGES | {"mined_repeat": 3}, selection=selection)
    data = TrainingData(split, settings, CPU, mined(2))
    assert data.pairs_N.tolist() == [7, 8, 9, 10, 11]
    assert data.pool_M.tolist() == [1, 3, 5, 7, 8, 9, 8, 9, 8, 9]
    assert len(data) == 5
    assert data.meta_NM.shape == (5 + 6, 2)
    shown = Counter((k, r) for p in plans_of(data, settings) for k, r in zip(p.kind_B, p.row_B, strict=True))
    assert {row for kind, row in shown if kind == POSITIVE} == {7, 8, 9, 10, 11}
    assert {row: n for (kind, row), n in shown.items() if kind == NEGATIVE} == {1: 1, 3: 1, 5: 1, 7: 1, 8: 3, 9: 3}


def test_bricks_are_left_out_of_the_pool_too(toy_split: MakeSplit) -> None:
    settings = toy_settings(sampler=IMAGES, selection={"exclude_bricks": ["bad"]})
    split = toy_split("train", 4, 1, negatives=6)
    bricks = ["good", "bad", "good", "good", "bad", "good"]
    split = replace(split, negative_rows=with_column(split.negative_rows, "brickname", bricks))
    data = TrainingData(split, settings, CPU, mined(2))
    assert data.pool_M.tolist() == [0, 2, 3, 5, 6, 7]


@pytest.mark.parametrize(("draw", "used"), [("images", [0, 2]), ("pairs", [0, 1, 2, 3])])
def test_a_mined_galaxy_that_bears_an_arc_is_a_negative_only_beside_its_positive(
    toy_split: MakeSplit, draw: str, used: list[int]
) -> None:
    """In pairs the host without its arc is a control; elsewhere it would be the one galaxy in both classes."""
    split = toy_split("train", 6, 1, negatives=5)
    found = mined(4)
    places = {name: found.rows[name].to_numpy().copy() for name in ("ra", "dec")}
    for name, values in places.items():
        # Two of the pairs' hosts, one a fraction of a milliarcsecond off; a neighbour half an arcsecond away stays.
        values[1] = split.rows[name][2].as_py()
        values[3] = split.rows[name][5].as_py() + 1e-7
        values[2] = split.rows[name][0].as_py() + 1.4e-4
        found = replace(found, rows=with_column(found.rows, name, values))
    sampler = {"draw": draw} if draw == "images" else {"draw": draw, "negative_prob": 0.2}
    data = TrainingData(split, toy_settings(sampler=sampler), CPU, found)
    assert [row - 5 for row in data.pool_M.tolist() if row >= 5] == used


def test_metadata_of_rows_that_are_left_out_need_not_be_usable(toy_split: MakeSplit) -> None:
    split = toy_split("train", 4, 1)
    split = replace(split, rows=with_column(split.rows, "psfsize_r", [1.0, 1.1, None, 1.2]))
    with pytest.raises(BadInputError, match="metadata that are not finite"):
        TrainingData(split, toy_settings(), CPU)
    split = replace(split, rows=with_column(split.rows, "arc_snr_maxpix", [9.0, 9.0, 0.0, 9.0]))
    data = TrainingData(split, toy_settings(selection={"min_arc_snr_maxpix": 1.0}), CPU)
    assert np.isfinite(data.meta_NM).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selection": {"min_arc_snr_maxpix": 3.0}}, "min_arc_snr_maxpix needs the column arc_snr_maxpix"),
        ({"selection": {"min_theta_over_psf": 9.0}}, "No pair is left in the training split"),
        ({"selection": {"negatives": ["spiral"]}, "sampler": IMAGES}, "pool of negatives is empty and draw: images"),
        ({"loss": {"label_smoothing": {"B": 0.05}}}, "label_smoothing needs the column tier"),
        ({"loss": {"weight_column": "sample_weight"}}, "weight_column needs the column sample_weight"),
        ({"loss": {"weight_column": "arc"}}, r"2 rows \(first: row 1\) have a arc that is not finite or negative"),
    ],
)
def test_what_the_data_cannot_give_is_said_in_one_sentence(
    toy_split: MakeSplit, changes: dict[str, object], words: str
) -> None:
    split = toy_split("train", 6, 1, negatives=4)
    split = replace(split, rows=with_column(split.rows, "arc", [1.0, -1.0, 1.0, 1.0, None, 1.0]))
    with pytest.raises(BadInputError, match=words):
        TrainingData(split, toy_settings(**changes), CPU)


def test_mined_negatives_that_nobody_would_see_are_refused(toy_split: MakeSplit) -> None:
    with pytest.raises(BadInputError, match="Mined hard negatives were given and the sampler uses no pool"):
        TrainingData(toy_split("train", 6, 1), toy_settings(), CPU, mined(2))


def test_a_generation_that_mined_none_trains_on_its_own_pool(toy_split: MakeSplit) -> None:
    data = TrainingData(toy_split("train", 6, 1, negatives=4), toy_settings(sampler=IMAGES), CPU, mined(0))
    assert data.pool_M.tolist() == [0, 1, 2, 3]


def test_arrays_that_do_not_belong_together_are_refused(toy_split: MakeSplit) -> None:
    split = toy_split("train", 6, 1, negatives=4)
    with pytest.raises(BadInputError, match="as many images"):
        TrainingData(replace(split, positive=split.positive[:5]), toy_settings(), CPU)
    with pytest.raises(BadInputError, match="as many images"):
        TrainingData(replace(split, negative=split.negative[:3]), toy_settings(sampler=IMAGES), CPU)
    with pytest.raises(BadInputError, match="differ in type or shape"):
        TrainingData(replace(split, control=split.control[..., :32, :32]), toy_settings(), CPU)


def test_targets_are_smoothed_by_tier_and_weights_follow_the_rows(toy_split: MakeSplit) -> None:
    split = toy_split("train", 4, 1, negatives=2)
    rows = with_column(split.rows, "tier", ["A", "B", None, "B"])
    rows = with_column(rows, "sample_weight", [1.0, 0.5, 2.0, 0.0])
    negatives = with_column(with_column(split.negative_rows, "tier", ["N2", "N1"]), "sample_weight", [3.0, 4.0])
    split = replace(split, rows=rows, negative_rows=negatives)
    loss = {"label_smoothing": {"B": 0.05, "N2": 0.1}, "weight_column": "sample_weight"}
    data = TrainingData(split, toy_settings(sampler=IMAGES, loss=loss), CPU)
    images = [*((POSITIVE, row, 0) for row in range(4)), (CONTROL, 1, 0), (NEGATIVE, 0, 0), (NEGATIVE, 1, 0)]
    batch = data.batch(plan_of(*images))
    assert batch.targets.tolist() == pytest.approx([1, 0.95, 1, 0.95, 0, 0.1, 0])
    assert batch.labels.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert batch.weights.tolist() == pytest.approx([1, 0.5, 2, 0, 0.5, 3, 4])


def test_a_plan_is_named_by_task_ids_or_rows(toy_split: MakeSplit) -> None:
    split = toy_split("train", 6, 1, negatives=4)
    plan = plan_of((POSITIVE, 2, 0), (CONTROL, 2, 0), (POSITIVE, 1, 0), (NEGATIVE, 4, 0), (NEGATIVE, 0, 0))
    data = TrainingData(split, toy_settings(sampler=IMAGES), CPU, mined(1))
    assert data.names(plan) == ["task-1-0001", "task-1-0002", "negative-1-0000", "mined-0"]
    nameless = replace(split, rows=split.rows.drop_columns(["task_id"]))
    assert TrainingData(nameless, toy_settings(), CPU).names(plan_of((CONTROL, 3, 0))) == ["row 3"]


def test_the_guard_sees_pairs_with_both_labels_and_a_pool_with_one(toy_split: MakeSplit) -> None:
    split = toy_split("train", 6, 1, negatives=4)
    labels, rows = TrainingData(split, toy_settings(), CPU).labels_and_meta()
    assert labels.tolist() == [1] * 6 + [0] * 6
    assert rows["task_id"].to_pylist() == split.rows["task_id"].to_pylist() * 2
    labels, rows = TrainingData(split, toy_settings(sampler=IMAGES), CPU, mined(2)).labels_and_meta()
    assert labels.tolist() == [1] * 6 + [0] * 6
    assert rows["task_id"].to_pylist()[6:] == [*split.negative_rows["task_id"].to_pylist(), "mined-0", "mined-1"]


def test_images_of_one_kind_are_read_by_row(toy_split: MakeSplit) -> None:
    split = toy_split("train", 6, 1, negatives=4)
    data = TrainingData(split, toy_settings(sampler=IMAGES), CPU, mined(1))
    rows = np.array([3, 0, 3])
    for kind in ("positive", "control", "hard_negative", "negative"):
        images = data.images(kind, rows)
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, getattr(split, kind)[rows].astype(np.float32))
    assert data.images("negative", np.array([4]))[0, 0, 0, 0] == 1000


def test_what_lies_on_the_device_makes_the_same_batches(toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    split = toy_split("train", 20, 1, negatives=10)
    split = replace(split, extra={"second": np.array(split.hard_negative) + np.float16(1)})
    settings = toy_settings(sampler={"per_pair": "all", "batch_pairs": 7, "negative_prob": 0.3})
    mapped = TrainingData(split, settings, CPU, mined(3), controls=True)
    resident = TrainingData(split, settings, CPU, mined(3), controls=True)
    monkeypatch.setattr(resident, "_resident", tuple(_copied(array, CPU) for array in resident._arrays))
    assert resident.resident
    for plan in plans_of(mapped, settings):
        expected, batch = mapped.batch(plan), resident.batch(plan)
        for name in ("images", "controls", "meta", "labels", "targets", "weights"):
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.4, 0.0], ids=["resident", "streamed"])
def test_a_gpu_gets_the_same_batches_resident_or_streamed(
    toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("dark_halo_scope.training.data.RESIDENT_SHARE", share)
    split = toy_split("train", 60, 1, negatives=30)
    split = replace(split, extra={"second": np.array(split.hard_negative) + np.float16(1)})
    settings = toy_settings(sampler={"per_pair": "all", "batch_pairs": 7, "negative_prob": 0.3})
    here = TrainingData(split, settings, CPU, mined(3), controls=True)
    there = TrainingData(split, settings, torch.device("cuda"), mined(3), controls=True)
    assert there.resident == (share > 0)
    plans = plans_of(here, settings)
    for plan, batch in zip(plans, prefetch(there, plans, workers=2), strict=True):
        expected = here.batch(plan)
        for name in ("images", "controls", "meta", "labels", "targets", "weights"):
            assert torch.equal(getattr(batch, name).cpu(), getattr(expected, name)), name


def test_what_validation_lacks_is_said_of_validation(toy_split: MakeSplit) -> None:
    selection = {"min_theta_over_psf": 9.0}
    with pytest.raises(BadInputError, match="No pair is left in the validation split; loosen"):
        TrainingData(toy_split("val", 4, 1), toy_settings(selection=selection), CPU, name="validation")
    with pytest.raises(BadInputError, match="The validation split's pool of negatives is empty"):
        TrainingData(toy_split("val", 4, 1), toy_settings(sampler=IMAGES), CPU, name="validation")
