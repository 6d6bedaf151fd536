"""What an epoch is worth: numbers of the validation split, from logits of all three images of its pairs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.evaluation.intervals import evaluate, weighted_auc
from dark_halo_scope.images.samplers import CLASSES, ClassMix
from dark_halo_scope.models.predict import Predict
from dark_halo_scope.training.config import LossSettings
from dark_halo_scope.training.data import PairedData
from dark_halo_scope.training.losses import image_loss


def score_split(
    predict: Predict, data: PairedData, batch_pairs: int, max_pairs: int | None, advance: Callable[[int], None]
) -> dict[str, NDArray[np.float64]]:
    """Raw logits (N,) of each kind of image, for the split's first pairs spread evenly where `max_pairs` cuts."""
    count = len(data) if max_pairs is None else min(max_pairs, len(data))
    rows_N = np.linspace(0, len(data) - 1, count).round().astype(np.int64)
    logits: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in CLASSES}
    for start in range(0, count, batch_pairs):
        rows_P = rows_N[start : start + batch_pairs]
        batch_rows = data.rows.take(rows_P)
        for kind in CLASSES:
            logits[kind].append(predict(np.asarray(data.arrays[kind][rows_P], dtype=np.float32), batch_rows))
        advance(len(rows_P))
    return {kind: np.concatenate(parts) for kind, parts in logits.items()}


def mixed_loss(logits: Mapping[str, NDArray[np.float64]], mix: ClassMix, settings: LossSettings) -> float:
    """Mean loss of a class mix: the mean of each kind, weighted with its probability."""
    total = 0.0
    for index, (kind, probability) in enumerate(zip(CLASSES, mix, strict=True)):
        logit_N = torch.from_numpy(np.asarray(logits[kind], dtype=np.float64))
        total += probability * float(image_loss(logit_N, torch.full_like(logit_N, float(index == 0)), settings).mean())
    return total


def validation_metrics(
    logits: Mapping[str, NDArray[np.float64]], mix: ClassMix, final_mix: ClassMix, settings: LossSettings
) -> dict[str, Any]:
    """AUC of positives against either kind of negative, mean p of each kind, and the loss of two class mixes.

    `val_loss` has the mix of the curriculum's end, `val_loss_epoch_mix` that of the epoch, to compare with training's.
    """
    return {
        "val_auc": float(evaluate(weighted_auc, logits["positive"], logits["control"])),
        "val_auc_hard_negative": float(evaluate(weighted_auc, logits["positive"], logits["hard_negative"])),
        "val_loss": mixed_loss(logits, final_mix, settings),
        "val_loss_epoch_mix": mixed_loss(logits, mix, settings),
        "mean_p": {kind: float(expit(logits[kind]).mean()) for kind in CLASSES},
        "hard_negative_fpr_at_0.5": float((logits["hard_negative"] >= 0).mean()),
    }
