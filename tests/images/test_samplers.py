"""Paired sampling: the curriculum's probabilities, and orders that follow from seed and epoch alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.images.samplers import (
    ClassMix,
    SamplerSettings,
    batches,
    class_mix,
    draw_classes,
    draw_variants,
    epoch_order,
    final_class_mix,
)

PLAN = SamplerSettings()


@pytest.mark.parametrize(("epoch", "hard"), [(0, 0.5), (9, 0.35), (18, 0.2), (29, 0.2)])
def test_the_curriculum_is_the_plans(epoch: int, hard: float) -> None:
    mix = class_mix(PLAN, epoch)
    assert mix.hard_negative == pytest.approx(hard)
    assert mix.positive == pytest.approx(mix.control)
    assert sum(mix) == pytest.approx(1)


def test_the_curriculum_ends_at_the_plans_static_mix() -> None:
    assert final_class_mix(PLAN) == pytest.approx((0.4, 0.4, 0.2, 0.0))


def test_positives_and_controls_share_the_rest_as_configured() -> None:
    settings = SamplerSettings.model_validate({"pos_prob": 0.2, "ctrl_prob": 0.6})
    mix = class_mix(settings, 0)
    assert mix == pytest.approx((0.125, 0.375, 0.5, 0.0))


def test_no_hard_negatives_throughout_is_possible() -> None:
    none = {"start_hard_negative_prob": 0.0, "end_hard_negative_prob": 0.0}
    settings = SamplerSettings.model_validate({"curriculum": none})
    assert {class_mix(settings, epoch) for epoch in range(30)} == {ClassMix(0.5, 0.5, 0.0)}
    assert 2 not in draw_classes(10_000, class_mix(settings, 3), 1, 3)


@given(pairs=st.integers(0, 3000), block=st.integers(1, 700), epoch=st.integers(0, 50), size=st.integers(1, 200))
def test_every_pair_is_visited_once_per_epoch_in_batches_of_even_size(
    pairs: int, block: int, epoch: int, size: int
) -> None:
    settings = SamplerSettings(block_pairs=block)
    parts = batches(epoch_order(pairs, settings, 42, epoch), size)
    visited = np.concatenate([np.empty(0, np.int64), *parts])
    np.testing.assert_array_equal(np.sort(visited), np.arange(pairs))
    sizes = [len(part) for part in parts]
    assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    order = epoch_order(5000, PLAN, 42, 3)
    np.testing.assert_array_equal(order, epoch_order(5000, PLAN, 42, 3))
    assert not np.array_equal(order, epoch_order(5000, PLAN, 42, 4))
    assert not np.array_equal(order, epoch_order(5000, PLAN, 43, 3))


def test_a_window_of_the_order_touches_few_blocks() -> None:
    settings = SamplerSettings(block_pairs=100)
    order = epoch_order(100_000, settings, 1, 0)
    assert len(np.unique(order[:800] // 100)) == 8
    assert np.abs(np.corrcoef(order[:800], np.arange(800))[0, 1]) < 0.2


def test_classes_come_as_often_as_their_probabilities_say() -> None:
    drawn = draw_classes(100_000, ClassMix(0.4, 0.35, 0.25), 7, 0)
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0.4, 0.35, 0.25], atol=0.006)


def test_the_class_drawn_changes_between_epochs() -> None:
    mix = ClassMix(0.4, 0.4, 0.2)
    assert not np.array_equal(draw_classes(500, mix, 1, 0), draw_classes(500, mix, 1, 1))


def test_every_hard_negative_of_a_pair_is_shown_over_the_epochs() -> None:
    drawn = np.stack([draw_variants(50, 3, 1, epoch) for epoch in range(30)])
    assert all(set(column) == {0, 1, 2} for column in drawn.T)
    assert not draw_variants(50, 1, 1, 0).any()
