"""What an epoch of a finder of real lenses is worth (calibration plan of 2026-02-10, section 6.2).

Precision and calibration depend on how rare lenses are: both are those of the validation split itself, whichever share
of its negatives was scored and however often training repeats lenses.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.training.group_checks import distance, reliability
from dark_halo_scope.training.validation import Logits, image_auc

#: The plan's operating point, of recall for precision and of precision for recall.
LEVEL = 0.9
TIERS = ("A", "B")


def image_metrics(
    logits: Logits, rows: pa.Table, counts: tuple[int, int], bins: int, level: float = LEVEL
) -> dict[str, Any]:
    """The plan's numbers of an epoch beside loss and AUC; what cannot be measured is None.

    Args:
        logits: `positive` (P,) and `negative` (N,) of the validation split.
        rows: of the positives, (P); their column `tier` says which are A and B.
        counts: lenses and negatives of the whole validation split, of which `logits` may be a part.
        bins: of the calibration error, of equal mass.

    Returns:
        val_auc_tier_{a,b}: AUC of one tier's lenses against all negatives, and n_tier_{a,b}, how many they are.
        val_precision_at_recall_0.9, val_recall_at_precision_0.9: at the split's own prevalence, which is `prevalence`.
        val_ece, val_ece_above_0.1, val_brier: distance of p from the share of lenses in bins of equal mass, over all
        images and over those with p > 0.1, and the mean square of p less the label.
    """
    positive, negative = logits["positive"], logits["negative"]
    weight = np.concatenate(
        [np.full(len(part), total / len(part)) for part, total in zip((positive, negative), counts, strict=True)]
    )
    label = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    score = np.concatenate([positive, negative])
    precision, recall = _curve(label, score, weight)
    p = expit(score)
    above = p > 0.1
    return {
        **_by_tier(positive, negative, rows),
        f"val_precision_at_recall_{level:g}": float(precision[np.searchsorted(recall, level - 1e-12)]),
        f"val_recall_at_precision_{level:g}": float(np.max(recall[precision >= level - 1e-12], initial=0.0)),
        "prevalence": counts[0] / sum(counts),
        "val_ece": distance(reliability(p, label, weight, bins)),
        "val_ece_above_0.1": distance(reliability(p[above], label[above], weight[above], bins))
        if above.any()
        else None,
        "val_brier": float(np.average((p - label) ** 2, weights=weight)),
    }


def _by_tier(positive: NDArray[np.float64], negative: NDArray[np.float64], rows: pa.Table) -> dict[str, Any]:
    tiers: Sequence[Any] = rows.column("tier").to_pylist() if "tier" in rows.column_names else [None] * rows.num_rows
    found: dict[str, Any] = {}
    for tier in TIERS:
        of_tier = positive[np.array([value == tier for value in tiers], dtype=bool)]
        found[f"val_auc_tier_{tier.lower()}"] = image_auc(of_tier, negative) if len(of_tier) else None
        found[f"n_tier_{tier.lower()}"] = len(of_tier)
    return found


def _curve(
    label: NDArray[np.float64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall at each distinct score, from the highest down; equal scores enter together."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last_of_tie = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    hits = np.cumsum((label * weight)[order])[last_of_tie]
    detections = np.cumsum(weight[order])[last_of_tie]
    return hits / detections, hits / hits[-1]
