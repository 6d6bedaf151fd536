"""Which images make a batch, in which order, and how much each counts.

Everything follows from (seed, epoch), never from what ran before or on which worker or rank: a resumed run draws what
an uninterrupted one does, and ranks share a batch without speaking to each other.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.core.errors import BadInputError

#: A pair's images; the first is the only lens.
PAIR_KINDS = ("positive", "control", "hard_negative")

#: All kinds, in the order that `BatchPlan.kind_B` counts. `negative`: an image of the pool, which belongs to no pair.
KINDS = (*PAIR_KINDS, "negative")
POSITIVE, CONTROL, HARD_NEGATIVE, NEGATIVE = range(4)

# Independent streams of one epoch; 2 and 3 are training's own.
_ORDER, _CLASSES, _VARIANTS, _POOL, _HARD, _INTERLEAVE = 0, 1, 4, 5, 6, 7

_WINDOW_BLOCKS = 8

Rows = NDArray[np.int64]


class CurriculumSettings(Settings):
    """Share of hard negatives: linear from `start` in epoch 0 to `end` in epoch `anneal_epochs`, constant after."""

    start_hard_negative_prob: float = Field(default=0.5, ge=0, lt=1)
    end_hard_negative_prob: float = Field(default=0.2, ge=0, lt=1)
    anneal_epochs: int = Field(default=18, ge=0)


class SelectionSettings(Settings):
    """Which pairs and negatives a stage trains on; those left out are not replaced."""

    min_theta_over_psf: float | None = Field(default=None, ge=0, description="of theta_E / psfsize_r")
    min_arc_snr_maxpix: float | None = Field(
        default=None,
        ge=0,
        description="of the largest signal-to-noise of one pixel, which the cuts 7.0 and 3.0 of Gen3's stages mean",
    )
    exclude_bricks: tuple[str, ...] = Field(default=(), description="of pairs and of negatives")
    negatives: tuple[str, ...] | None = Field(
        default=None, description="`control_kind` of the pool's images that are used; null: all"
    )


class SamplerSettings(Settings):
    """What an epoch shows. The defaults are the Gen5-Prime plan's.

    `pairs`: every pair once. Hard negatives take their share first; positives and controls divide the rest as
    `pos_prob : ctrl_prob`. With the plan's 0.4 : 0.4 they are equal at every epoch, and at the curriculum's end the mix
    is the plan's 0.4, 0.4, 0.2. `negative_prob` of every batch comes from the pool, and the three divide the rest.

    `images`: every positive once and every image of the pool once, mixed at random; the curriculum's share of hard
    negatives is added to them. With `stratify` they are dealt out instead of mixed: what an epoch shows is put in order
    by class and stratum (the values of the named columns together), and goes to its batches in turn. So each batch has
    the share that each stratum of each class has of the epoch, rounded down or up to whole images; batches differ by
    one image at most; and a batch lacks positives only where the epoch has fewer positives than batches.
    `positive_share` shows positives as often as makes them that share of the images that are no hard negatives,
    each as often as the others but for one time.
    """

    draw: Literal["pairs", "images"] = "pairs"
    batch_pairs: int = Field(default=64, ge=1, description="pairs in a batch of `draw: pairs`")
    batch_images: int = Field(default=256, ge=1, description="images in a batch of `draw: images`")
    per_pair: Literal["one", "all"] = Field(
        default="one",
        description="`one`: each visit of a pair draws one image by the class probabilities; `all`: it yields all "
        "three, and the probabilities become weights of the loss, which shows the network what differs within a pair",
    )
    pos_prob: float = Field(default=0.4, gt=0, le=1)
    ctrl_prob: float = Field(default=0.4, gt=0, le=1)
    negative_prob: float = Field(
        default=0.0, ge=0, lt=1, description="share of a batch of `draw: pairs` that comes from the pool of negatives"
    )
    mined_repeat: int = Field(default=1, ge=1, description="how often the pool holds each mined hard negative")
    stratify: tuple[str, ...] = Field(
        default=(),
        description="columns of the packed rows; of each class's images with one combination of values every batch of "
        "`draw: images` has its share",
    )
    positive_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="positives' share of what a batch of `draw: images` shows beside hard negatives, by repeating "
        "them; null: each once. The loss then has that share too: probabilities want a correction of the prior",
    )
    curriculum: CurriculumSettings = CurriculumSettings()
    block_pairs: int = Field(
        default=512, ge=1, description="images that lie together on disk and are shuffled as one block"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.draw == "images" and self.negative_prob:
            raise ValueError("negative_prob belongs to draw: pairs; draw: images shows each image of the pool once")
        if self.draw == "pairs" and (self.stratify or self.positive_share is not None):
            raise ValueError("stratify and positive_share belong to draw: images; pairs are alike in all but the arc")
        if len(set(self.stratify)) != len(self.stratify):
            raise ValueError("stratify names a column twice")
        return self

    @property
    def uses_pool(self) -> bool:
        """Whether batches hold images of the pool."""
        return self.draw == "images" or self.negative_prob > 0


class Strata(NamedTuple):
    """The stratum of each row, a number of 0 or more: of the pairs (N,) and of the pool (M,), selected or not."""

    pairs: Rows
    pool: Rows


class ClassMix(NamedTuple):
    """Probabilities of the four kinds; they sum to 1."""

    positive: float
    control: float
    hard_negative: float
    negative: float = 0.0


@dataclass(frozen=True)
class BatchPlan:
    """What one batch, or a rank's part of it, shows: B images in this order.

    kind_B: index in KINDS. row_B: row of the pairs for the first three kinds, of the pool for `negative`. variant_B:
    which of its hard negatives a pair shows, 0 the one that gates are measured on. weight_B: weight in the loss.
    pairs: P, where the first K * P entries are K kinds of the same P pairs, kind after kind; 0 where an entry stands
    for itself. total: images of the whole batch over all ranks.
    """

    kind_B: NDArray[np.int8]
    row_B: Rows
    variant_B: NDArray[np.int8]
    weight_B: NDArray[np.float32]
    pairs: int
    total: int

    def __len__(self) -> int:
        return len(self.kind_B)

    @property
    def kinds_of_pairs(self) -> int:
        """K, how many kinds of each pair the first K * P entries show; 0 where an entry stands for itself."""
        return int(np.sum(self.kind_B != NEGATIVE)) // self.pairs if self.pairs else 0

    def places(self, rank: int, ranks: int) -> Rows:
        """Where in this batch the images of a rank's part are, in their order.

        Pairs, then what stands for itself, are dealt out in turn, so that parts differ by one deal at most and each has
        its share of every kind.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not one of {ranks}")
        paired = self.kinds_of_pairs * self.pairs
        pair_P = np.arange(rank, self.pairs, ranks)
        in_pairs = (np.arange(self.kinds_of_pairs)[:, None] * self.pairs + pair_P).ravel()
        single = np.arange(paired + (rank - self.pairs) % ranks, len(self), ranks)
        return np.concatenate([in_pairs, single]).astype(np.int64)

    def shard(self, rank: int, ranks: int) -> "BatchPlan":
        """The part of a rank: parts are disjoint and complete, no pair is torn, `total` stays; a part may be empty."""
        chosen = self.places(rank, ranks)
        return BatchPlan(
            self.kind_B[chosen],
            self.row_B[chosen],
            self.variant_B[chosen],
            self.weight_B[chosen],
            len(range(rank, self.pairs, ranks)),
            self.total,
        )


def class_mix(settings: SamplerSettings, epoch: int, counts: tuple[int, int] | None = None) -> ClassMix:
    """The class probabilities of an epoch, counted from 0.

    Args:
        settings: the sampler's.
        epoch: counted from 0.
        counts: positives and images of the pool; `draw: images` needs them, because it shows each once, or positives
            as often as their share says.
    """
    curriculum = settings.curriculum
    progress = min(1.0, epoch / curriculum.anneal_epochs) if curriculum.anneal_epochs else 1.0
    start, end = curriculum.start_hard_negative_prob, curriculum.end_hard_negative_prob
    hard = start + (end - start) * progress
    if settings.draw == "images":
        if counts is None or not sum(counts):
            raise ValueError("the class mix of draw: images needs the numbers of positives and of images in the pool")
        positive = (1 - hard) * (
            counts[0] / sum(counts) if settings.positive_share is None else settings.positive_share
        )
        return ClassMix(positive, 0.0, hard, 1 - hard - positive)
    positive = (1 - hard) * settings.pos_prob / (settings.pos_prob + settings.ctrl_prob)
    rest = 1 - settings.negative_prob
    return ClassMix(rest * positive, rest * (1 - hard - positive), rest * hard, settings.negative_prob)


def final_class_mix(settings: SamplerSettings, counts: tuple[int, int] | None = None) -> ClassMix:
    """The class probabilities after the curriculum."""
    return class_mix(settings, settings.curriculum.anneal_epochs, counts)


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, epoch, stream)))


def epoch_order(count: int, settings: SamplerSettings, seed: int, epoch: int, stream: int = _ORDER) -> Rows:
    """Every number below `count` once, block-shuffled: blocks in random order, images shuffled among eight neighbours.

    Reading stays nearly sequential on disk, which random access to arrays larger than memory is not.
    """
    rng = _generator(seed, epoch, stream)
    block = settings.block_pairs
    starts = rng.permutation(np.arange(0, count, block))
    window = _WINDOW_BLOCKS * block
    order = np.concatenate([np.arange(start, min(start + block, count)) for start in starts] or [np.arange(0)])
    for begin in range(0, count, window):
        order[begin : begin + window] = rng.permutation(order[begin : begin + window])
    return order.astype(np.int64)


def batches(order_N: Rows, batch_size: int) -> list[Rows]:
    """The order cut into batches whose sizes differ by at most one, each sorted for reading.

    A last batch of a few images would give batch normalisation a poor estimate.
    """
    if not len(order_N):
        return []
    return [np.sort(part) for part in np.array_split(order_N, -(-len(order_N) // batch_size))]


def draw_classes(pairs: int, mix: ClassMix, seed: int, epoch: int) -> Rows:
    """One index in PAIR_KINDS for each pair of an epoch, by pair, not by place in the order."""
    uniform = _generator(seed, epoch, _CLASSES).random(pairs)
    edges = np.cumsum(mix)[:2] / (1 - mix.negative)
    return np.searchsorted(edges, uniform, side="right").astype(np.int64)


def draw_variants(count: int, variants: int, seed: int, epoch: int) -> Rows:
    """Which of its hard negatives each pair shows in an epoch, where a dataset packs several of them."""
    return _generator(seed, epoch, _VARIANTS).integers(variants, size=count)


def check_draw(settings: SamplerSettings, pairs: int, pool: int, split: str = "training") -> None:
    """Refuse to draw from what is empty.

    Raises:
        BadInputError: no pairs, or no images in a pool that batches need.
    """
    if not pairs:
        raise BadInputError(
            f"No pair is left in the {split} split; loosen the stage's `selection`, or pack more pairs."
        )
    if settings.uses_pool and not pool:
        needed = "draw: images" if settings.draw == "images" else f"negative_prob {settings.negative_prob:g}"
        raise BadInputError(
            f"The {split} split's pool of negatives is empty and {needed} needs one; give the dataset unpaired "
            "controls or confusers, mine hard negatives, or loosen `selection.negatives`."
        )


def epoch_plan(
    settings: SamplerSettings,
    pairs_N: Rows,
    pool_M: Rows,
    variants: int,
    seed: int,
    epoch: int,
    strata: Strata | None = None,
) -> list[BatchPlan]:
    """Every batch of an epoch.

    Args:
        settings: the sampler's.
        pairs_N: rows of the pairs to train on, increasing.
        pool_M: rows of the pool to train on, repeats included.
        variants: how many hard negatives each pair has.
        seed: of the run.
        epoch: counted from 0.
        strata: by row, where `stratify` names columns.

    Raises:
        BadInputError: no pairs, or no images in a pool that batches need; fewer positives in an epoch than there are.
    """
    check_draw(settings, len(pairs_N), len(pool_M))
    if settings.stratify and strata is None:
        raise ValueError("a plan with stratify needs the rows' strata")
    if settings.stratify or settings.positive_share is not None:
        return _deal_images(settings, pairs_N, pool_M, variants, seed, epoch, strata)
    if settings.draw == "images":
        return _plan_images(settings, pairs_N, pool_M, variants, seed, epoch)
    return _plan_pairs(settings, pairs_N, pool_M, variants, seed, epoch)


def _plan_pairs(
    settings: SamplerSettings, pairs_N: Rows, pool_M: Rows, variants: int, seed: int, epoch: int
) -> list[BatchPlan]:
    mix = class_mix(settings, epoch)
    # A kind of probability 0 is left out: it would cost time and enter the statistics of batch normalisation.
    shown = np.array([kind for kind in range(len(PAIR_KINDS)) if mix[kind] > 0], dtype=np.int8)
    every = settings.per_pair == "all"
    variant_N = draw_variants(len(pairs_N), variants, seed, epoch)
    class_N = None if every else draw_classes(len(pairs_N), mix, seed, epoch)
    parts = batches(epoch_order(len(pairs_N), settings, seed, epoch), settings.batch_pairs)
    extra = [_pool_share(len(part) * (len(shown) if every else 1), mix.negative) for part in parts]
    pool_T = _cycled(pool_M, sum(extra), settings, seed, epoch, _POOL)
    ends = np.cumsum(extra)
    plans = []
    for part, count, end in zip(parts, extra, ends.tolist(), strict=True):
        if class_N is None:
            place, kind = np.tile(part, len(shown)), np.repeat(shown, len(part))
        else:
            place = part[np.argsort(class_N[part], kind="stable")]
            kind = class_N[place].astype(np.int8)
        total = len(place) + count
        scale = np.float32(total / len(part))
        weight = np.asarray(mix, np.float32)[kind] * scale if every else np.full(len(place), (1 - mix.negative) * scale)
        pool = np.sort(pool_T[end - count : end])
        plans.append(
            _plan(
                np.concatenate([kind, np.full(count, NEGATIVE)]),
                np.concatenate([pairs_N[place], pool]),
                np.concatenate([variant_N[place], np.zeros(count)]),
                np.concatenate([weight, np.full(count, mix.negative * total / max(count, 1))]),
                pairs=len(part) if every else 0,
            )
        )
    return plans


def _plan_images(
    settings: SamplerSettings, pairs_N: Rows, pool_M: Rows, variants: int, seed: int, epoch: int
) -> list[BatchPlan]:
    once = len(pairs_N) + len(pool_M)
    share = class_mix(settings, epoch, (len(pairs_N), len(pool_M))).hard_negative
    hard = _whole_batches(once, share, settings.batch_images) - once if share else 0
    orders = {
        POSITIVE: pairs_N[epoch_order(len(pairs_N), settings, seed, epoch)],
        HARD_NEGATIVE: _cycled(pairs_N, hard, settings, seed, epoch, _HARD),
        NEGATIVE: pool_M[epoch_order(len(pool_M), settings, seed, epoch, _POOL)],
    }
    # Each kind is read in its own order, nearly sequentially, and which kind comes when is random over the whole epoch:
    # blocks of all kinds in one order would make batches without a lens where lenses are rare.
    kind_T = np.repeat(np.array(list(orders), dtype=np.int8), [len(order) for order in orders.values()])
    kind_T = _generator(seed, epoch, _INTERLEAVE).permutation(kind_T)
    row_T, variant_T = np.empty(len(kind_T), np.int64), np.zeros(len(kind_T), np.int8)
    for kind, order in orders.items():
        row_T[kind_T == kind] = order
    variant_T[kind_T == HARD_NEGATIVE] = draw_variants(hard, variants, seed, epoch)
    # The weights make up for the rounding, so that an epoch has the share that its mix says.
    weight_of_kind = np.full(len(KINDS), (1 - share) * len(kind_T) / once)
    weight_of_kind[HARD_NEGATIVE] = share * len(kind_T) / max(hard, 1)
    plans = []
    for part in batches(np.arange(len(kind_T)), settings.batch_images):
        chosen = part[np.lexsort((row_T[part], kind_T[part]))]
        weight = weight_of_kind[kind_T[chosen]]
        plans.append(_plan(kind_T[chosen], row_T[chosen], variant_T[chosen], weight, pairs=0))
    return plans


def _deal_images(
    settings: SamplerSettings,
    pairs_N: Rows,
    pool_M: Rows,
    variants: int,
    seed: int,
    epoch: int,
    strata: Strata | None,
) -> list[BatchPlan]:
    mix = class_mix(settings, epoch, (len(pairs_N), len(pool_M)))
    positives = positives_shown(settings, len(pairs_N), len(pool_M))
    once = positives + len(pool_M)
    hard = _whole_batches(once, mix.hard_negative, settings.batch_images) - once if mix.hard_negative else 0
    counts = {POSITIVE: positives, HARD_NEGATIVE: hard, NEGATIVE: len(pool_M)}
    number = -(-(once + hard) // settings.batch_images)
    kinds, rows, turns = [], [], []
    dealt = 0
    for (kind, count), stream in zip(counts.items(), (_ORDER, _HARD, _POOL), strict=True):
        row_K = _cycled(pool_M if kind == NEGATIVE else pairs_N, count, settings, seed, epoch, stream)
        stratum_K = np.zeros(count, np.int64)
        if strata is not None:
            stratum_K = (strata.pool if kind == NEGATIVE else strata.pairs)[row_K]
        for stratum in np.unique(stratum_K):
            of_stratum = row_K[stratum_K == stratum]
            # Whose turn it is, card after card, goes on from one stratum to the next, so that batches grow alike. A
            # batch takes its cards of a stratum from one stretch of the order, which lies together on disk.
            turns.append(np.sort((dealt + np.arange(len(of_stratum))) % number))
            rows.append(of_stratum)
            kinds.append(np.full(len(of_stratum), kind, np.int8))
            dealt += len(of_stratum)
    kind_T, row_T, turn_T = np.concatenate(kinds), np.concatenate(rows), np.concatenate(turns)
    variant_T = np.zeros(dealt, np.int8)
    if hard:
        variant_T[kind_T == HARD_NEGATIVE] = draw_variants(hard, variants, seed, epoch)
    # The weights make up for the rounding, so that an epoch has the share that its mix says.
    weight_of_kind = np.array([share * dealt / max(counts.get(kind, 0), 1) for kind, share in enumerate(mix)])
    plans = []
    # Who gets one image more of a stratum follows from the turns: batches in random order hide them.
    for turn in _generator(seed, epoch, _INTERLEAVE).permutation(number).tolist():
        part = np.flatnonzero(turn_T == turn)
        chosen = part[np.lexsort((row_T[part], kind_T[part]))]
        weight = weight_of_kind[kind_T[chosen]]
        plans.append(_plan(kind_T[chosen], row_T[chosen], variant_T[chosen], weight, pairs=0))
    return plans


def positives_shown(settings: SamplerSettings, positives: int, pool: int) -> int:
    """How many positives an epoch of `draw: images` shows, repeats included.

    Raises:
        BadInputError: `positive_share` is less than what they are of all images once.
    """
    if settings.positive_share is None:
        return positives
    shown = round(settings.positive_share / (1 - settings.positive_share) * pool)
    if shown < positives:
        raise BadInputError(
            f"sampler.positive_share {settings.positive_share:g} would leave out positives: {positives} beside {pool} "
            f"images of the pool are a share of {positives / (positives + pool):.3g}; raise it, or leave it out."
        )
    return shown


def _whole_batches(once: int, share: float, batch: int) -> int:
    """How many images an epoch has that shows `once` and, beside them, nearly a `share` of hard negatives.

    Whole batches, whatever the share is, where there is more than one: steps would be compiled anew for other sizes.
    """
    total = max(once + 1, round(once / (1 - share)))
    return total if total <= batch else max(-(-(once + 1) // batch), round(total / batch)) * batch


def _pool_share(images: int, probability: float) -> int:
    """How many images of the pool join those of pairs; their weight makes up for the rounding."""
    return max(1, round(images * probability / (1 - probability))) if probability else 0


def _cycled(rows_M: Rows, count: int, settings: SamplerSettings, seed: int, epoch: int, stream: int) -> Rows:
    """`count` of the rows, block-shuffled, from the start again where there are fewer."""
    if not count:
        return np.empty(0, np.int64)
    return rows_M[np.resize(epoch_order(len(rows_M), settings, seed, epoch, stream), count)]


def _plan(
    kind_B: NDArray[np.generic],
    row_B: NDArray[np.generic],
    variant_B: NDArray[np.generic],
    weight_B: NDArray[np.generic],
    pairs: int,
) -> BatchPlan:
    kinds = kind_B.astype(np.int8)
    variant_B = np.where(kinds == HARD_NEGATIVE, variant_B, 0)
    return BatchPlan(
        kinds, row_B.astype(np.int64), variant_B.astype(np.int8), weight_B.astype(np.float32), pairs, len(kinds)
    )
