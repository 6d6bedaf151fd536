"""Sampling: the curriculum's probabilities, and epochs that follow from seed and number alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.samplers import (
    CONTROL,
    HARD_NEGATIVE,
    NEGATIVE,
    POSITIVE,
    BatchPlan,
    ClassMix,
    SamplerSettings,
    Strata,
    batches,
    class_mix,
    draw_classes,
    draw_variants,
    epoch_order,
    epoch_plan,
    final_class_mix,
)

PLAN = SamplerSettings()
NO_POOL = np.empty(0, np.int64)


def sampler(**values: object) -> SamplerSettings:
    return SamplerSettings.model_validate(values)


def constant(share: float) -> dict[str, object]:
    """A curriculum that always gives hard negatives this share."""
    return {"start_hard_negative_prob": share, "end_hard_negative_prob": share, "anneal_epochs": 0}


def shown(plans: list[BatchPlan]) -> list[tuple[int, int, int]]:
    """(kind, row, variant) of every image, in the order of the epoch."""
    return [
        image
        for plan in plans
        for image in zip(plan.kind_B.tolist(), plan.row_B.tolist(), plan.variant_B.tolist(), strict=True)
    ]


def weight_by_kind(plans: list[BatchPlan]) -> list[float]:
    weights = sum(np.bincount(plan.kind_B, plan.weight_B, 4) for plan in plans)
    return list(weights / np.sum(weights))


@pytest.mark.parametrize(("epoch", "hard"), [(0, 0.5), (9, 0.35), (18, 0.2), (29, 0.2)])
def test_the_curriculum_is_the_plans(epoch: int, hard: float) -> None:
    mix = class_mix(PLAN, epoch)
    assert mix.hard_negative == pytest.approx(hard)
    assert mix.positive == pytest.approx(mix.control)
    assert sum(mix) == pytest.approx(1)


def test_the_curriculum_ends_at_the_plans_static_mix() -> None:
    assert final_class_mix(PLAN) == pytest.approx((0.4, 0.4, 0.2, 0.0))


def test_positives_and_controls_share_the_rest_as_configured() -> None:
    mix = class_mix(sampler(pos_prob=0.2, ctrl_prob=0.6), 0)
    assert mix == pytest.approx((0.125, 0.375, 0.5, 0.0))


def test_the_pools_share_comes_first_and_pairs_divide_the_rest() -> None:
    assert class_mix(sampler(negative_prob=0.2), 0) == pytest.approx((0.2, 0.2, 0.4, 0.2))


def test_each_image_once_makes_the_mix_that_the_data_have() -> None:
    settings = sampler(draw="images", curriculum=constant(0.2))
    assert class_mix(settings, 3, (100, 300)) == pytest.approx((0.2, 0.0, 0.2, 0.6))
    with pytest.raises(ValueError, match="needs the numbers of positives"):
        class_mix(settings, 3)


def test_no_hard_negatives_throughout_is_possible() -> None:
    settings = sampler(curriculum=constant(0.0))
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


def test_classes_of_pairs_keep_their_ratios_beside_a_pool() -> None:
    drawn = draw_classes(100_000, ClassMix(0.2, 0.175, 0.125, 0.5), 7, 0)
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0.4, 0.35, 0.25], atol=0.006)


def test_the_class_drawn_changes_between_epochs() -> None:
    mix = ClassMix(0.4, 0.4, 0.2)
    assert not np.array_equal(draw_classes(500, mix, 1, 0), draw_classes(500, mix, 1, 1))


def test_every_hard_negative_of_a_pair_is_shown_over_the_epochs() -> None:
    drawn = np.stack([draw_variants(50, 3, 1, epoch) for epoch in range(30)])
    assert all(set(column) == {0, 1, 2} for column in drawn.T)
    assert not draw_variants(50, 1, 1, 0).any()


def test_all_images_of_a_pair_come_kind_after_kind_in_rising_rows() -> None:
    rows = np.array([3, 5, 8, 13, 21, 34, 55])
    plans = epoch_plan(sampler(per_pair="all", batch_pairs=4), rows, NO_POOL, 2, 42, 1)
    for plan in plans:
        assert plan.pairs * 3 == len(plan) == plan.total
        np.testing.assert_array_equal(plan.kind_B, np.repeat([POSITIVE, CONTROL, HARD_NEGATIVE], plan.pairs))
        of_kind = plan.row_B.reshape(3, -1)
        assert (of_kind == np.sort(of_kind[0])).all()
        assert not plan.variant_B[: 2 * plan.pairs].any()
    assert sorted(row for kind, row, _ in shown(plans) if kind == POSITIVE) == rows.tolist()
    assert {variant for kind, _, variant in shown(plans) if kind == HARD_NEGATIVE} == {0, 1}


def test_all_images_of_a_pair_weigh_what_their_class_probabilities_say() -> None:
    plans = epoch_plan(sampler(per_pair="all", batch_pairs=8), np.arange(24), NO_POOL, 1, 42, 9)
    assert weight_by_kind(plans) == pytest.approx(class_mix(PLAN, 9))
    assert np.mean([plan.weight_B for plan in plans]) == pytest.approx(1)


def test_a_kind_of_probability_zero_is_not_shown() -> None:
    (plan,) = epoch_plan(sampler(per_pair="all", curriculum=constant(0.0)), np.arange(4), NO_POOL, 1, 42, 0)
    assert plan.kind_B.tolist() == [POSITIVE] * 4 + [CONTROL] * 4
    assert plan.weight_B.tolist() == [1.0] * 8


def test_one_image_of_each_pair_is_the_one_drawn() -> None:
    rows = np.arange(1000, 1200)
    plans = epoch_plan(sampler(batch_pairs=50), rows, NO_POOL, 1, 42, 2)
    drawn = draw_classes(200, class_mix(PLAN, 2), 42, 2)
    assert sorted((row, kind) for kind, row, _ in shown(plans)) == list(zip(rows.tolist(), drawn.tolist(), strict=True))
    for plan in plans:
        assert plan.pairs == 0
        assert (plan.weight_B == 1).all()
        assert (np.diff(plan.kind_B) >= 0).all()


def test_both_halves_of_a_pair_occur() -> None:
    """The earlier pipeline labelled by the parity of the index, so that a pair always showed the same half."""
    seen: dict[int, set[int]] = {row: set() for row in range(64)}
    for epoch in range(60):
        for kind, row, _ in shown(epoch_plan(PLAN, np.arange(64), NO_POOL, 1, 42, epoch)):
            seen[row].add(kind)
    assert all({POSITIVE} < kinds for kinds in seen.values())
    together = shown(epoch_plan(sampler(per_pair="all"), np.arange(64), NO_POOL, 1, 42, 0))
    assert Counter((kind, row) for kind, row, _ in together) == Counter(
        (kind, row) for kind in range(3) for row in seen
    )


@pytest.mark.parametrize("per_pair", ["one", "all"])
def test_a_share_of_every_batch_comes_from_the_pool(per_pair: str) -> None:
    settings = sampler(per_pair=per_pair, batch_pairs=16, negative_prob=0.25, curriculum=constant(0.2))
    pool = np.arange(100, 140)
    plans = epoch_plan(settings, np.arange(100), pool, 1, 42, 0)
    for plan in plans:
        share = plan.weight_B[plan.kind_B == NEGATIVE].sum() / plan.weight_B.sum()
        assert share == pytest.approx(0.25)
        assert plan.weight_B.mean() == pytest.approx(1)
    drawn = [row for kind, row, _ in shown(plans) if kind == NEGATIVE]
    assert set(drawn) <= set(pool.tolist())
    counts = Counter(drawn)
    assert max(counts.values()) - min(counts.get(row, 0) for row in pool.tolist()) <= 1
    if per_pair == "all":
        assert weight_by_kind(plans) == pytest.approx(class_mix(settings, 0))


@given(
    pairs=st.integers(1, 200),
    pool=st.integers(1, 600),
    size=st.integers(1, 64),
    hard=st.sampled_from([0.0, 0.3]),
    epoch=st.integers(0, 5),
)
def test_an_epoch_of_images_shows_every_positive_and_the_whole_pool_once(
    pairs: int, pool: int, size: int, hard: float, epoch: int
) -> None:
    settings = sampler(draw="images", batch_images=size, block_pairs=16, curriculum=constant(hard))
    pairs_n, pool_m = np.arange(7, 7 + pairs), np.concatenate([np.arange(pool), np.tile(np.arange(pool, pool + 3), 5)])
    images = shown(epoch_plan(settings, pairs_n, pool_m, 2, 42, epoch))
    by_kind = {kind: Counter(row for of, row, _ in images if of == kind) for kind in range(4)}
    assert by_kind[POSITIVE] == Counter(pairs_n.tolist())
    assert by_kind[NEGATIVE] == Counter(pool_m.tolist())
    assert not by_kind[CONTROL]
    wanted = hard / (1 - hard) * (pairs + len(pool_m))
    assert bool(by_kind[HARD_NEGATIVE]) == bool(hard)
    assert by_kind[HARD_NEGATIVE].total() == pytest.approx(wanted, abs=max(1, size))
    assert set(by_kind[HARD_NEGATIVE]) <= set(pairs_n.tolist())


@pytest.mark.parametrize(("pairs", "pool"), [(300, 700), (37, 1021), (5, 40)])
def test_a_changing_share_of_hard_negatives_changes_no_batchs_size_and_weights_keep_the_share(
    pairs: int, pool: int
) -> None:
    settings = sampler(draw="images", batch_images=64)  # from one half to a fifth
    sizes = set()
    for epoch in range(20):
        plans = epoch_plan(settings, np.arange(pairs), np.arange(pool), 1, 42, epoch)
        kind, weight = (np.concatenate([getattr(plan, name) for plan in plans]) for name in ("kind_B", "weight_B"))
        mix = class_mix(settings, epoch, (pairs, pool))
        assert [weight[kind == index].sum() / len(kind) for index in range(4)] == pytest.approx(mix, abs=1e-5)
        if len(plans) > 1:
            sizes |= {len(plan) for plan in plans}
    assert sizes <= {64}


def test_without_hard_negatives_batches_have_two_sizes_and_weigh_1() -> None:
    settings = sampler(draw="images", batch_images=64, curriculum=constant(0.0))
    plans = [plan for epoch in range(5) for plan in epoch_plan(settings, np.arange(90), np.arange(911), 1, 42, epoch)]
    assert {len(plan) for plan in plans} == {62, 63}
    assert all((plan.weight_B == 1).all() for plan in plans)


def test_rare_positives_are_spread_over_the_whole_epoch() -> None:
    settings = sampler(draw="images", batch_images=200, block_pairs=512, curriculum=constant(0.0))
    plans = epoch_plan(settings, np.arange(1000), np.arange(20_000), 1, 42, 0)
    positives = [int(np.sum(plan.kind_B == POSITIVE)) for plan in plans]
    assert min(positives) >= 1
    assert max(positives) <= 25


def test_epochs_differ_and_each_can_be_planned_alone() -> None:
    for settings in (PLAN, sampler(draw="images"), sampler(negative_prob=0.3, per_pair="all")):
        first, second = (shown(epoch_plan(settings, np.arange(50), np.arange(80), 2, 42, n)) for n in (3, 4))
        assert first != second
        assert first == shown(epoch_plan(settings, np.arange(50), np.arange(80), 2, 42, 3))
        assert first != shown(epoch_plan(settings, np.arange(50), np.arange(80), 2, 43, 3))


@given(
    draw=st.sampled_from(["pairs", "images"]),
    per_pair=st.sampled_from(["one", "all"]),
    negative=st.sampled_from([0.0, 0.3]),
    pairs=st.integers(1, 60),
    ranks=st.integers(1, 5),
    epoch=st.integers(0, 4),
)
def test_ranks_see_every_image_of_a_batch_once_and_tear_no_pair(
    draw: str, per_pair: str, negative: float, pairs: int, ranks: int, epoch: int
) -> None:
    """The earlier pipeline dealt out by rank only, so that eight workers each read everything."""
    settings = sampler(
        draw=draw,
        per_pair=per_pair,
        negative_prob=negative if draw == "pairs" else 0.0,
        batch_pairs=16,
        batch_images=32,
    )
    for plan in epoch_plan(settings, np.arange(pairs), np.arange(40), 2, 42, epoch):
        places = [plan.places(rank, ranks) for rank in range(ranks)]
        assert sorted(np.concatenate(places).tolist()) == list(range(len(plan)))
        shards = [plan.shard(rank, ranks) for rank in range(ranks)]
        assert sum(shard.pairs for shard in shards) == plan.pairs
        for shard, place in zip(shards, places, strict=True):
            assert shown([shard]) == [shown([plan])[index] for index in place.tolist()]
            np.testing.assert_array_equal(shard.weight_B, plan.weight_B[place])
            assert shard.total == plan.total
            paired = shard.row_B[: shard.kinds_of_pairs * shard.pairs].reshape(-1, shard.pairs or 1)
            assert (paired == paired[:1]).all()
        sizes = [len(shard) for shard in shards]
        assert max(sizes) - min(sizes) <= max(1, plan.kinds_of_pairs)


def test_a_rank_has_its_share_of_every_kind() -> None:
    (plan,) = epoch_plan(sampler(draw="images", batch_images=999), np.arange(40), np.arange(200), 1, 42, 0)
    for rank in range(4):
        kinds = np.bincount(plan.shard(rank, 4).kind_B, minlength=4)
        np.testing.assert_allclose(kinds, np.bincount(plan.kind_B, minlength=4) / 4, atol=1)


def test_a_rank_that_does_not_exist_gets_nothing() -> None:
    (plan,) = epoch_plan(PLAN, np.arange(4), NO_POOL, 1, 42, 0)
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        plan.shard(2, 2)


def test_what_is_empty_is_refused_in_one_sentence() -> None:
    with pytest.raises(BadInputError, match="No pair is left in the training split; loosen the stage's `selection`"):
        epoch_plan(PLAN, NO_POOL, NO_POOL, 1, 42, 0)
    for settings, what in ((sampler(draw="images"), "draw: images"), (sampler(negative_prob=0.1), "negative_prob 0.1")):
        with pytest.raises(BadInputError, match=f"pool of negatives is empty and {what} needs one"):
            epoch_plan(settings, np.arange(4), NO_POOL, 1, 42, 0)


def test_a_share_of_the_pool_is_no_setting_of_images() -> None:
    with pytest.raises(ValidationError, match="negative_prob belongs to draw: pairs"):
        sampler(draw="images", negative_prob=0.1)


def stratified(**values: object) -> SamplerSettings:
    return sampler(**{"draw": "images", "stratify": ["type_bin"], "curriculum": constant(0.0), **values})


@given(
    positives=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    pool=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    batch=st.sampled_from([4, 16, 64]),
    share=st.sampled_from([0.0, 0.3]),
    epoch=st.integers(0, 3),
)
def test_every_batch_has_its_share_of_every_stratum_of_each_class_to_one_image(
    positives: list[int], pool: list[int], batch: int, share: float, epoch: int
) -> None:
    strata = Strata(np.array(positives), np.array(pool))
    pairs_n, pool_m = np.arange(len(positives)), np.arange(len(pool))
    settings = stratified(batch_images=batch, curriculum=constant(share))
    plans = epoch_plan(settings, pairs_n, pool_m, 2, 42, epoch, strata)
    sizes = [len(plan) for plan in plans]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch
    images = shown(plans)
    assert sorted(row for kind, row, _ in images if kind == POSITIVE) == pairs_n.tolist()
    assert sorted(row for kind, row, _ in images if kind == NEGATIVE) == pool_m.tolist()
    for kind, stratum_of in ((POSITIVE, strata.pairs), (HARD_NEGATIVE, strata.pairs), (NEGATIVE, strata.pool)):
        for stratum in range(4):
            counts = [int(np.sum(stratum_of[plan.row_B[plan.kind_B == kind]] == stratum)) for plan in plans]
            assert max(counts) - min(counts) <= 1
    mix = class_mix(settings, epoch, (len(positives), len(pool)))
    assert weight_by_kind(plans) == pytest.approx(mix, abs=1e-5)


def test_rare_lenses_are_in_every_stratified_batch() -> None:
    """One lens in 101 galaxies and batches of 256: at random one batch in thirteen would have none."""
    strata = Strata(np.arange(120) % 3, np.arange(12_000) % 5)
    plans = epoch_plan(stratified(batch_images=256), np.arange(120), np.arange(12_000), 1, 42, 0, strata)
    assert {int(np.sum(plan.kind_B == POSITIVE)) for plan in plans} == {2, 3}


def test_a_share_of_positives_shows_each_as_often_as_the_others() -> None:
    settings = sampler(draw="images", positive_share=0.25, batch_images=20, curriculum=constant(0.0))
    plans = epoch_plan(settings, np.arange(10), np.arange(99), 1, 42, 0)
    shown_often = Counter(row for kind, row, _ in shown(plans) if kind == POSITIVE)
    assert set(shown_often.values()) == {3, 4}
    assert all(int(np.sum(plan.kind_B == POSITIVE)) in (4, 5) for plan in plans)
    assert class_mix(settings, 0, (10, 99)) == pytest.approx((0.25, 0, 0, 0.75))
    assert weight_by_kind(plans) == pytest.approx((0.25, 0, 0, 0.75), abs=1e-5)


def test_a_share_that_would_leave_out_positives_is_refused() -> None:
    settings = sampler(draw="images", positive_share=0.05, curriculum=constant(0.0))
    with pytest.raises(BadInputError, match="would leave out positives: 10 beside 90 images"):
        epoch_plan(settings, np.arange(10), np.arange(90), 1, 42, 0)


def test_stratified_epochs_differ_and_each_can_be_planned_alone() -> None:
    strata = Strata(np.arange(50) % 3, np.arange(80) % 4)
    settings = stratified(batch_images=16, positive_share=0.5)
    first, second = (shown(epoch_plan(settings, np.arange(50), np.arange(80), 2, 42, n, strata)) for n in (3, 4))
    assert first != second
    assert first == shown(epoch_plan(settings, np.arange(50), np.arange(80), 2, 42, 3, strata))


def test_strata_of_rows_that_are_left_out_are_not_looked_at() -> None:
    strata = Strata(np.array([9, 0, 9, 1]), np.array([5, 5, 2, 2]))
    plans = epoch_plan(stratified(batch_images=2), np.array([1, 3]), np.array([2, 3]), 1, 42, 0, strata)
    assert sorted(shown(plans)) == [(POSITIVE, 1, 0), (POSITIVE, 3, 0), (NEGATIVE, 2, 0), (NEGATIVE, 3, 0)]


@pytest.mark.parametrize("wrong", [{"stratify": ["type_bin"]}, {"positive_share": 0.5}])
def test_strata_and_a_share_of_positives_are_no_settings_of_pairs(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="belong to draw: images"):
        sampler(**wrong)
