"""What an epoch is worth: numbers of the validation split, from logits of all images of its pairs and of its pool."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.intervals import weighted_auc
from dark_halo_scope.images.samplers import KINDS, NEGATIVE, ClassMix, SamplerSettings
from dark_halo_scope.models.predict import Predict
from dark_halo_scope.training.config import LossSettings
from dark_halo_scope.training.data import Rows, TrainingData, spread
from dark_halo_scope.training.losses import image_loss

Logits = Mapping[str, NDArray[np.float64]]

#: Negatives that `val_auc` compares positives with: their own controls, or the pool.
Against = Literal["control", "negative"]


def val_auc_against(settings: SamplerSettings) -> Against:
    """What a run's `val_auc` compares positives with: what it trains on as their plain negatives."""
    return "control" if settings.draw == "pairs" else "negative"


def validation_rows(data: TrainingData, max_pairs: int | None) -> tuple[Rows, Rows]:
    """Rows of the pairs and of the pool that are scored: all, or `max_pairs` of each, spread evenly."""
    return spread(data.pairs_N, max_pairs), spread(np.unique(data.pool_M), max_pairs)


def score_split(
    predict: Predict,
    data: TrainingData,
    batch_pairs: int,
    max_pairs: int | None,
    advance: Callable[[int], None],
    kinds: Sequence[str] = KINDS,
) -> dict[str, NDArray[np.float64]]:
    """Raw logits (N,) of each kind of image that the split has, in the order of `validation_rows`.

    Args:
        predict: the network.
        data: the validation split.
        batch_pairs: pairs, or images of the pool, read at once.
        max_pairs: as in `validation_rows`.
        advance: told how many pairs or images of the pool were scored.
        kinds: those that are scored, where the split has them.
    """
    pairs_N, pool_M = validation_rows(data, max_pairs)
    of_pairs = [kind for kind in data.kinds if kind != KINDS[NEGATIVE] and kind in kinds]
    logits: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in of_pairs}
    for start in range(0, len(pairs_N), batch_pairs):
        rows_P = pairs_N[start : start + batch_pairs]
        batch_rows = data.rows.take(rows_P)
        controls = data.images("control", rows_P) if data.paired else None
        for kind in of_pairs:
            images = controls if kind == "control" and controls is not None else data.images(kind, rows_P)
            logits[kind].append(predict(images, batch_rows, controls=controls))
        advance(len(rows_P))
    if KINDS[NEGATIVE] not in kinds:
        pool_M = pool_M[:0]
    if len(pool_M):
        logits["negative"] = []
    for start in range(0, len(pool_M), batch_pairs):
        rows_P = pool_M[start : start + batch_pairs]
        images = data.images("negative", rows_P)
        # An image that has nothing taken out of it is its own control.
        logits["negative"].append(predict(images, data.pool_rows.take(rows_P), controls=images))
        advance(len(rows_P))
    return {kind: np.concatenate(parts) for kind, parts in logits.items()}


def mixed_loss(logits: Logits, mix: ClassMix, settings: LossSettings) -> float:
    """Mean loss of a class mix: the mean of each kind, weighted with its probability.

    Targets are the labels themselves, also where training smooths them, so that generations compare.

    Raises:
        BadInputError: a kind that the mix has was not scored.
    """
    total = 0.0
    for index, (kind, probability) in enumerate(zip(KINDS, mix, strict=True)):
        if not probability:
            continue
        if kind not in logits:
            raise BadInputError(
                f"Training shows {kind} images and the validation split has none; pack a validation split that has."
            )
        logit_N = torch.from_numpy(np.asarray(logits[kind], dtype=np.float64))
        total += probability * float(image_loss(logit_N, torch.full_like(logit_N, float(index == 0)), settings).mean())
    return total


def validation_metrics(
    logits: Logits, mix: ClassMix, final_mix: ClassMix, settings: LossSettings, against: Against = "control"
) -> dict[str, Any]:
    """AUC of positives against each kind of negative, mean p of each kind, and the loss of two class mixes.

    `val_auc` is that against the negatives named by `against`. `val_loss` has the mix of the curriculum's end,
    `val_loss_epoch_mix` that of the epoch, to compare with training's.

    Raises:
        BadInputError: a kind that is needed was not scored.
    """
    if against not in logits:
        raise BadInputError(
            f"val_auc compares positives with {against} images and the validation split has none; pack one that has."
        )
    others = {
        f"val_auc_{kind}": image_auc(logits["positive"], logits[kind])
        for kind in ("hard_negative", "negative")
        if kind in logits
    }
    alarms = {}
    if "hard_negative" in logits:
        alarms["hard_negative_fpr_at_0.5"] = float((logits["hard_negative"] >= 0).mean())
    return {
        "val_auc": image_auc(logits["positive"], logits[against]),
        **others,
        "val_loss": mixed_loss(logits, final_mix, settings),
        "val_loss_epoch_mix": mixed_loss(logits, mix, settings),
        "mean_p": {kind: float(expit(values).mean()) for kind, values in logits.items()},
        **alarms,
    }


def image_auc(positive_N: NDArray[np.float64], negative_M: NDArray[np.float64]) -> float:
    """How often a positive's logit is above a negative's, a tie counting one half."""
    items = np.concatenate([positive_N, negative_M])
    first = np.arange(len(items)) < len(positive_N)
    return float(weighted_auc(items, first[None].astype(float), (~first)[None].astype(float))[0])
