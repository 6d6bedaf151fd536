"""Paired sampling: which pairs make a batch, and which of a pair's three images count how much.

Everything follows from (seed, epoch), never from what ran before: a resumed run draws what an uninterrupted one does.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dark_halo_scope.core.config import Settings

#: A pair's images, in the order that class indices count; the first is the only lens.
CLASSES = ("positive", "control", "hard_negative")

_ORDER, _CLASSES, _VARIANTS = 0, 1, 4  # independent streams of one epoch; 2 and 3 are training's own


class CurriculumSettings(Settings):
    """Share of hard negatives: linear from `start` in epoch 0 to `end` in epoch `anneal_epochs`, constant after."""

    start_hard_negative_prob: float = Field(default=0.5, ge=0, lt=1)
    end_hard_negative_prob: float = Field(default=0.2, ge=0, lt=1)
    anneal_epochs: int = Field(default=18, ge=0)


class SamplerSettings(Settings):
    """Paired batches. The defaults are the plan's.

    Hard negatives take their share first; positives and controls divide the rest as `pos_prob : ctrl_prob`. With the
    plan's 0.4 : 0.4 they are equal at every epoch, and at the curriculum's end the mix is the plan's 0.4, 0.4, 0.2.
    """

    batch_pairs: int = Field(default=64, ge=1)
    per_pair: Literal["one", "all"] = Field(
        default="one",
        description="`one`: each visit of a pair draws one image by the class probabilities; `all`: it yields all "
        "three, and the probabilities become weights of the loss, which shows the network what differs within a pair",
    )
    pos_prob: float = Field(default=0.4, gt=0, le=1)
    ctrl_prob: float = Field(default=0.4, gt=0, le=1)
    curriculum: CurriculumSettings = CurriculumSettings()
    block_pairs: int = Field(
        default=512, ge=1, description="pairs that lie together on disk and are shuffled as one block"
    )


class ClassMix(NamedTuple):
    """Probabilities of positives, controls and hard negatives; they sum to 1."""

    positive: float
    control: float
    hard_negative: float


def class_mix(settings: SamplerSettings, epoch: int) -> ClassMix:
    """The class probabilities of an epoch, counted from 0."""
    curriculum = settings.curriculum
    progress = min(1.0, epoch / curriculum.anneal_epochs) if curriculum.anneal_epochs else 1.0
    start, end = curriculum.start_hard_negative_prob, curriculum.end_hard_negative_prob
    hard = start + (end - start) * progress
    positive = (1 - hard) * settings.pos_prob / (settings.pos_prob + settings.ctrl_prob)
    return ClassMix(positive, 1 - hard - positive, hard)


def final_class_mix(settings: SamplerSettings) -> ClassMix:
    """The class probabilities after the curriculum."""
    return class_mix(settings, settings.curriculum.anneal_epochs)


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, epoch, stream)))


def epoch_order(pairs: int, settings: SamplerSettings, seed: int, epoch: int) -> NDArray[np.int64]:
    """Every pair once, block-shuffled: blocks in random order, pairs shuffled among eight neighbouring blocks.

    Reading stays nearly sequential on disk, which random access to arrays larger than memory is not.
    """
    rng = _generator(seed, epoch, _ORDER)
    block = settings.block_pairs
    starts = rng.permutation(np.arange(0, pairs, block))
    window = 8 * block
    order = np.concatenate([np.arange(start, min(start + block, pairs)) for start in starts] or [np.arange(0)])
    for begin in range(0, pairs, window):
        order[begin : begin + window] = rng.permutation(order[begin : begin + window])
    return order.astype(np.int64)


def batches(order_N: NDArray[np.int64], batch_pairs: int) -> list[NDArray[np.int64]]:
    """The order cut into batches whose sizes differ by at most one, each sorted for reading.

    A last batch of a few pairs would give batch normalisation a poor estimate.
    """
    if not len(order_N):
        return []
    return [np.sort(part) for part in np.array_split(order_N, -(-len(order_N) // batch_pairs))]


def draw_classes(pairs: int, mix: ClassMix, seed: int, epoch: int) -> NDArray[np.int64]:
    """One class index (see CLASSES) for each pair of an epoch, by pair, not by place in the order."""
    uniform = _generator(seed, epoch, _CLASSES).random(pairs)
    return np.searchsorted(np.cumsum(mix)[:2], uniform, side="right").astype(np.int64)


def draw_variants(pairs: int, variants: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which of its hard negatives each pair shows in an epoch, where a dataset packs several of them."""
    return _generator(seed, epoch, _VARIANTS).integers(variants, size=pairs)
