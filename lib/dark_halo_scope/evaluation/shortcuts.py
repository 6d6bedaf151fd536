"""Data-level shortcuts: what simple classifiers find in pairs before any network is trained.

None of these numbers decides anything. Against plain controls a radial profile reaches 0.95 by construction, because an
injection adds light; against ring-shuffled arcs an annulus's flux has 0.50. Every AUC is measured on cells of sky that
the classifier was not fitted on: fitted and scored on the same rows, pure noise gives 0.87. Scores of one fold are
compared with each other only (`auc_within`), because each fold has a model of its own. Rows with a feature that is no
number are left out: any number in its place would tell classes apart where one of them lacks it more often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.hybrids import Geometry
from dark_halo_scope.evaluation.intervals import (
    FloatArray,
    auc_within,
    evaluate,
    host_bootstrap,
    permutation_null,
    two_sample_bootstrap,
)

Images = NDArray[np.floating]
TOO_FEW = "too few"


@dataclass(frozen=True)
class PairSample:
    """Pairs drawn from a dataset.

    positive, control, hard_negative: (N, C, H, W) nanomaggies per pixel.
    where: core and annulus of each pair.
    host: index of the host galaxy, (N,).
    cell: HEALPix cell, (N,).
    """

    positive: Images
    control: Images
    hard_negative: Images
    where: Geometry
    host: NDArray[np.intp]
    cell: NDArray[np.int64]


@dataclass(frozen=True)
class UnpairedSample:
    """Images of one class, without partners in the other.

    images: (N, C, H, W) nanomaggies per pixel.
    where: core and annulus; of a galaxy without a lens those of a positive, whose Einstein radius it borrows.
    metadata: observing conditions that a network may be given, (N, M).
    host: index of the host galaxy, (N,).
    cell: HEALPix cell, (N,).
    """

    images: Images
    where: Geometry
    metadata: FloatArray
    host: NDArray[np.intp]
    cell: NDArray[np.int64]


def measure_shortcuts(sample: PairSample, settings: ShortcutSettings, seed: int) -> dict[str, Any]:
    """AUCs of both classifiers on every feature set, against controls and against hard negatives.

    Returns:
        comparison -> features -> classifier -> {value, n, hosts, interval, null}, or the words `too few`; where pairs
        were left out, with their number `left_out`.
    """
    rng = np.random.default_rng(seed)
    negatives = {"control": sample.control, "hard_negative": sample.hard_negative}
    result: dict[str, Any] = {}
    for name, negative in negatives.items():
        features: dict[str, tuple[FloatArray, ...]] = {
            "core": tuple(core_pixels(images, settings) for images in (sample.positive, negative)),
            "radial": tuple(radial_profile(images, sample.where, settings) for images in (sample.positive, negative)),
            "annulus": tuple(annulus_statistics(images, sample.where) for images in (sample.positive, negative)),
            "corner_noise": tuple(corner_noise(images, settings) for images in (sample.positive, negative)),
        }
        result[name] = {
            feature: shortcut_aucs(first, second, sample.host, sample.cell, settings, rng)
            for feature, (first, second) in features.items()
        }
    return result


def measure_unpaired(
    positive: UnpairedSample, negative: UnpairedSample, settings: ShortcutSettings, seed: int
) -> dict[str, Any]:
    """AUCs of both classifiers that tell positives from negatives of other galaxies.

    Beside the pairs' features it has `metadata`: seeing, depth and extinction, by which classes must not differ.

    Returns:
        features -> classifier -> {value, n, negatives, hosts, interval}, or the words `too few`; where images of either
        class were left out, with their number `left_out`.
    """
    rng = np.random.default_rng(seed)
    both = (positive, negative)
    features = {
        "core": [core_pixels(one.images, settings) for one in both],
        "radial": [radial_profile(one.images, one.where, settings) for one in both],
        "annulus": [annulus_statistics(one.images, one.where) for one in both],
        "corner_noise": [corner_noise(one.images, settings) for one in both],
        "metadata": [one.metadata for one in both],
    }
    return {name: _unpaired_aucs(values, both, settings, rng) for name, values in features.items()}


def _unpaired_aucs(
    features: Sequence[FloatArray],
    samples: tuple[UnpairedSample, UnpairedSample],
    settings: ShortcutSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    columns, *known = _known(*features)
    first, second = (one[np.ix_(rows, columns)] for one, rows in zip(features, known, strict=True))
    hosts = (samples[0].host[known[0]], samples[1].host[known[1]])
    cells = np.concatenate([one.cell[rows] for one, rows in zip(samples, known, strict=True)])
    if min(len(first), len(second)) < settings.min_pairs or len(np.unique(cells)) < 2:
        return {"logistic": TOO_FEW, "boosting": TOO_FEW}
    result: dict[str, Any] = {}
    with threadpool_limits(limits=1):
        for name, model in _models(settings).items():
            one, other, folds = _held_out(model, first, second, cells, settings.folds)
            auc, weights = auc_within(folds), np.repeat([1.0, 0.0], [len(first), len(second)])[None]
            value = float(auc(np.concatenate([one, other]), weights, 1 - weights)[0])
            if np.isnan(value):  # no fold has both classes, or could learn from both
                return {"logistic": TOO_FEW, "boosting": TOO_FEW}
            interval = two_sample_bootstrap(auc, one, other, hosts, rng, settings.bootstraps, settings.confidence)
            result[name] = {
                "value": value,
                "n": len(first),
                "negatives": len(second),
                "hosts": sum(len(np.unique(host)) for host in hosts),
                "interval": [interval.low, interval.high],
                **_left_out(np.concatenate(known)),
            }
    return result


def shortcut_aucs(
    positive: FloatArray,
    negative: FloatArray,
    hosts: NDArray[np.intp],
    cells: NDArray[np.int64],
    settings: ShortcutSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Cross-validated AUC of logistic regression and gradient boosting on aligned features (N, F).

    Both members of a pair, and all pairs of a cell, lie in one fold.
    """
    columns, *known = _known(positive, negative)
    pairs = known[0] & known[1]
    positive, negative = (one[np.ix_(pairs, columns)] for one in (positive, negative))
    hosts, cells = hosts[pairs], cells[pairs]
    if len(positive) < settings.min_pairs or len(np.unique(cells)) < 2:
        return {"logistic": TOO_FEW, "boosting": TOO_FEW}
    # Boosting on a few thousand rows waits for its threads far longer than it computes where cores are shared.
    with threadpool_limits(limits=1):
        return {
            name: _paired_auc(*held_out_scores(model, positive, negative, cells, settings.folds), hosts, settings, rng)
            | _left_out(pairs)
            for name, model in _models(settings).items()
        }


def _known(first: FloatArray, second: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Columns (F,) that any row has, and rows (N,), (M,) of each class that are finite in all of them."""
    finite = [np.isfinite(one) for one in (first, second)]
    # What neither class has says nothing about either.
    columns = np.asarray(np.concatenate(finite).any(axis=0))
    one, other = (np.asarray(part[:, columns].all(axis=1) & columns.any()) for part in finite)
    return columns, one, other


def _left_out(known: NDArray[np.bool_]) -> dict[str, int]:
    return {} if known.all() else {"left_out": int((~known).sum())}


def logistic_regression() -> Any:
    """A linear classifier of standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))


def _models(settings: ShortcutSettings) -> Mapping[str, Any]:
    return {
        "logistic": logistic_regression(),
        "boosting": HistGradientBoostingClassifier(
            max_iter=settings.trees, max_leaf_nodes=15, early_stopping=False, random_state=0
        ),
    }


def held_out_scores(
    model: Any, positive: FloatArray, negative: FloatArray, cells: NDArray[np.int64], folds: int
) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Scores (N,), (N,) of each pair by a model fitted on other cells, and the folds (2N,) of positives and negatives.

    They are probabilities of the fold's own model, comparable within the fold alone. Features are finite.
    """
    return _held_out(model, positive, negative, np.tile(cells, 2), folds)


def _held_out(
    model: Any, positive: FloatArray, negative: FloatArray, groups: NDArray[np.int64], folds: int
) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    n = len(positive)
    features = np.concatenate([positive, negative]).astype(np.float64)
    labels = np.repeat([1, 0], [n, len(negative)])
    scores, fold = np.zeros(len(labels)), np.full(len(labels), -1, dtype=np.intp)
    splitter = GroupKFold(n_splits=min(folds, len(np.unique(groups))))
    for number, (fit, held_out) in enumerate(splitter.split(features, labels, groups)):
        if len(np.unique(labels[fit])) == 2:  # else all cells of a class are held out: nothing to learn from
            scores[held_out] = model.fit(features[fit], labels[fit]).predict_proba(features[held_out])[:, 1]
            fold[held_out] = number
    return scores[:n], scores[n:], fold


def core_pixels(images: Images, settings: ShortcutSettings) -> FloatArray:
    """(N, C * side^2) pixels of the central square."""
    height, width = images.shape[-2:]
    side = settings.core_pixels
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, :, top : top + side, left : left + side].reshape(len(images), -1).astype(np.float64)


def radial_profile(images: Images, where: Geometry, settings: ShortcutSettings) -> FloatArray:
    """(N, C * rings) means over rings one pixel wide about the lens."""
    n, bands = images.shape[:2]
    ring = np.minimum((where.radius / where.pixel_scale).astype(np.intp), settings.rings)
    index = (ring + (settings.rings + 1) * np.arange(n)[:, None, None]).ravel()
    length = n * (settings.rings + 1)
    count = np.maximum(np.bincount(index, minlength=length), 1)
    means = [
        (np.bincount(index, images[:, band].astype(np.float64).ravel(), minlength=length) / count).reshape(n, -1)[
            :, :-1
        ]
        for band in range(bands)
    ]
    return np.concatenate(means, axis=1)


def annulus_statistics(images: Images, where: Geometry) -> FloatArray:
    """(N, C * 7) mean, standard deviation, minimum, maximum, median and 10th and 90th percentile of the arc annulus."""
    values = np.where(where.annulus[:, None], images.astype(np.float64), np.nan).reshape(*images.shape[:2], -1)
    quantiles = np.nanquantile(values, [0.0, 0.1, 0.5, 0.9, 1.0], axis=2)
    moments = np.stack([np.nanmean(values, axis=2), np.nanstd(values, axis=2)])
    return np.concatenate([quantiles, moments]).transpose(1, 2, 0).reshape(len(images), -1)


def corner_noise(images: Images, settings: ShortcutSettings) -> FloatArray:
    """(N, C * 4) mean, standard deviation, and correlation of horizontal and vertical neighbours in the four corners.

    Injections and controls from different extraction paths differ here: resampling correlates noise.
    """
    side = settings.corner_pixels
    squares = [(slice(None, side), slice(None, side)), (slice(None, side), slice(-side, None))]
    squares += [(slice(-side, None), columns) for _, columns in squares]
    corners = np.stack([images[:, :, rows, columns] for rows, columns in squares], axis=2).astype(np.float64)
    centred = corners - np.median(corners, axis=(-2, -1), keepdims=True)
    variance = np.maximum((centred**2).mean(axis=(2, 3, 4)), np.finfo(float).tiny)
    across = (centred[..., 1:] * centred[..., :-1]).mean(axis=(2, 3, 4)) / variance
    down = (centred[..., 1:, :] * centred[..., :-1, :]).mean(axis=(2, 3, 4)) / variance
    mean = corners.mean(axis=(2, 3, 4))
    return np.stack([mean, np.sqrt(variance), across, down], axis=-1).reshape(len(images), -1)


def core_brightness_ratio(sample: PairSample) -> float:
    """Ratio of the mean core brightness (r < r_core, all bands) of positives and controls."""
    core = sample.where.core[:, None]
    return float((sample.positive * core).sum(dtype=np.float64) / (sample.control * core).sum(dtype=np.float64))


def _paired_auc(
    first: FloatArray,
    second: FloatArray,
    folds: NDArray[np.intp],
    hosts: NDArray[np.intp],
    settings: ShortcutSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    auc = auc_within(folds)
    interval = host_bootstrap(auc, first, second, hosts, rng, settings.bootstraps, settings.confidence)
    null = permutation_null(auc, first, second, hosts, rng, settings.permutations, settings.confidence)
    return {
        "value": evaluate(auc, first, second),
        "n": len(first),
        "hosts": len(np.unique(hosts)),
        "interval": [interval.low, interval.high],
        "null": {"mean": null.mean, "interval": [null.low, null.high], "p_value": null.p_value},
    }
