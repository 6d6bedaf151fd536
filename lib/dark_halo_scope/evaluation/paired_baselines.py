"""What a paired network could do without looking at any arc: by flux alone, or by variance alone.

The configuration review's worry (its Q8): stamp channels that are brighter than the control's, or that vary more, give
an injection away. A paired network whose AUC is not above these numbers has learned nothing else. They never decide.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gates import measure
from dark_halo_scope.evaluation.intervals import FloatArray, auc_within
from dark_halo_scope.evaluation.pairs import Pairs, host_labels
from dark_halo_scope.evaluation.shortcuts import held_out_scores, logistic_regression
from dark_halo_scope.images.preprocess import Preprocess6CH

FOLDS = 5
BANDS = 3


def paired_features(
    preprocess: Preprocess6CH, stamps_N3HW: NDArray[np.float32], controls_N3HW: NDArray[np.float32]
) -> dict[str, FloatArray]:
    """What the two baselines see of preprocessed stamps and their control channels.

    Args:
        preprocess: with a control source.
        stamps_N3HW, controls_N3HW: images and their own controls, nanomaggies per pixel.

    Returns:
        flux: (N, 3) mean of stamp minus control in each band. variance: (N, 6) of each stamp and control channel.
    """
    device = preprocess.annulus.device
    with torch.inference_mode():
        x_NCHW = preprocess(*(torch.from_numpy(images).to(device) for images in (stamps_N3HW, controls_N3HW)))
        stamp_N3HW, control_N3HW = x_NCHW[:, :BANDS], x_NCHW[:, -BANDS:]
        flux_N3 = (stamp_N3HW - control_N3HW).mean((2, 3))
        variance_N6 = torch.cat([stamp_N3HW, control_N3HW], dim=1).var((2, 3))
    return {"flux": flux_N3.cpu().double().numpy(), "variance": variance_N6.cpu().double().numpy()}


def measure_paired_baselines(
    preprocess: Preprocess6CH,
    split: Pairs,
    pairs_N: NDArray[np.integer],
    settings: GateSettings,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """AUC of logistic regression on flux and on variance, positives against controls and against hard negatives.

    Every score comes from a model that was not fitted on its host, and is compared with those of its fold.

    Args:
        preprocess: of the network, with a control source.
        split: the pairs.
        pairs_N: rows of those that the gates are measured on; one with a pixel that is not finite is left out.
        settings: the gates', for the smallest number of pairs, and resampling.
        rng: resamples.
        advance: told how many pairs were dealt with.

    Returns:
        comparison -> features -> {value, n, hosts, interval, null, status}, as gates have them.
    """
    features: dict[str, list[dict[str, FloatArray]]] = {"positive": [], "control": [], "hard_negative": []}
    kept = []
    for start in range(0, len(pairs_N), settings.batch_pairs):
        batch = pairs_N[start : start + settings.batch_pairs]
        images = {kind: np.asarray(getattr(split, kind)[batch], dtype=np.float32) for kind in features}
        finite = np.all([np.isfinite(values).all(axis=(1, 2, 3)) for values in images.values()], axis=0)
        for kind, parts in features.items():
            parts.append(paired_features(preprocess, images[kind][finite], images["control"][finite]))
        kept.append(batch[finite])
        advance(len(batch))
    index = np.concatenate([*kept, np.empty(0, dtype=np.intp)])
    host = host_labels(split.rows.take(pa.array(index)))
    result: dict[str, Any] = {}
    with threadpool_limits(limits=1):
        for other in ("control", "hard_negative"):
            result[other] = {}
            for name in ("flux", "variance"):
                first, second = _joined(features["positive"], name), _joined(features[other], name)
                result[other][name] = _held_out_auc(first, second, host, settings, rng)
    return result


def _joined(parts: list[dict[str, FloatArray]], name: str) -> FloatArray:
    return np.concatenate([part[name] for part in parts]) if parts else np.empty((0, 0))


def _held_out_auc(
    positive: FloatArray, negative: FloatArray, host: NDArray[np.intp], settings: GateSettings, rng: np.random.Generator
) -> dict[str, Any]:
    n = len(positive)
    if min(n, len(np.unique(host))) < settings.min_pairs:
        # Of so few nothing is fitted; `measure` says so.
        return measure(auc_within(np.zeros(2 * n)), np.zeros(n), np.zeros(n), host, settings, rng)
    first, second, folds = held_out_scores(logistic_regression(), positive, negative, host.astype(np.int64), FOLDS)
    return measure(auc_within(folds), first, second, host, settings, rng)
