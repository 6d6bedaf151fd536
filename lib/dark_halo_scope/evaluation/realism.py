"""Whether injections look like real lenses to a linear classifier, and how much of that is hosts, sky or extraction.

A probe is a logistic regression of standardised features under cross-validation in which a cell of sky lies in one
fold, so that it is judged on sky that it was not fitted on. Its AUC is near 0.5 where two classes cannot be told apart
and near 1 where they always can. What is compared, with M lenses matched (`evaluation.matching`):

- lenses_vs_injections: M real lenses, M injections onto hosts that look like theirs. The number.
- floor: the hosts alone. Of each lens's two matched hosts one, at random, goes to either side; controls, which have no
  arc, against controls. Both sides are drawn alike, so the truth is 0.5; over many tosses, how far from it probes of
  this size go without cause.
- lenses_vs_controls: M real lenses, the controls of the M injections: how visible their arcs, with all else that sets
  the classes apart, are.

What no survey has is real lenses without their arcs. Differences between lens galaxies and hosts that matching leaves
(`matching`) therefore stay within the first number, as do those in seeing and depth (`metadata`) and those that come of
the images' ways to us (`corner_noise`). Lenses come two ways: through the cutout service, which resamples, and cut out
of the coadds as injections are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.intervals import auc_within, two_sample_bootstrap
from dark_halo_scope.evaluation.matching import Match, match_hosts, match_quality
from dark_halo_scope.evaluation.pairs import column, true_theta_e
from dark_halo_scope.evaluation.realism_config import RealismSettings
from dark_halo_scope.evaluation.shortcuts import (
    UnpairedSample,
    corner_noise,
    logistic_regression,
    measure_unpaired,
    shortcut_aucs,
)
from dark_halo_scope.survey.names import BANDS, PIXEL_SCALE

FloatArray = NDArray[np.float64]

MEASURED = "measured"
#: Conditions that may set classes apart; those that both have are compared.
METADATA = ("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_g", "psfdepth_r", "psfdepth_z", "ebv")


@dataclass(frozen=True)
class Galaxies:
    """Images of one class.

    images: (N, 3, H, W) nanomaggies per pixel.
    rows: what is known of them, with ra, dec, healpix_128, split, psfsize_r and psfdepth_r.
    centre: (N, 2) position of the galaxy, arcsec from the stamp's centre.
    host: number of the galaxy, (N,).
    photometry: variable -> (N,), as `matching.host_photometry` has them, and conditions.
    features: penultimate features, (N, F).
    """

    images: NDArray[np.floating]
    rows: pa.Table
    centre: FloatArray
    host: NDArray[np.intp]
    photometry: Mapping[str, FloatArray]
    features: FloatArray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def cell(self) -> NDArray[np.int64]:
        """HEALPix cell of each, (N,)."""
        return column(self.rows, "healpix_128").astype(np.int64)

    def take(self, places: NDArray[np.intp]) -> "Galaxies":
        """Those at some places, in their order."""
        return Galaxies(
            self.images[places],
            self.rows.take(pa.array(places)),
            self.centre[places],
            self.host[places],
            {name: values[places] for name, values in self.photometry.items()},
            self.features[places],
        )


def number(value: float | None, n: int, interval: tuple[float, float] | None, status: str = MEASURED) -> dict[str, Any]:
    """One number as every artifact of a generation holds it."""
    return {"value": value, "n": n, "interval": None if interval is None else list(interval), "status": status}


def not_measurable(n: int, why: str) -> dict[str, Any]:
    """A number that there is not, and why."""
    return number(None, n, None, f"not measurable: {why}")


def match(lenses: Galaxies, injections: Galaxies, variables: Sequence[str], caliper: float) -> Match:
    """Injections matched to lenses in some variables of their photometry; one that a class lacks matches nothing."""
    nothing = [np.full(len(one), np.nan) for one in (lenses, injections)]
    real, injected = (
        np.stack([one.photometry.get(name, unknown) for name in variables], axis=1)
        for one, unknown in zip((lenses, injections), nothing, strict=True)
    )
    return match_hosts(real, injected, caliper)


def measure_realism(
    lenses: Galaxies, injections: Galaxies, controls: Galaxies, found: Match, settings: RealismSettings
) -> dict[str, Any]:
    """Every comparison of some lenses, which came one way, with injections.

    Args:
        lenses: real ones.
        injections: one a host.
        controls: the same stamps without arcs, aligned with `injections`.
        found: which injection was matched to which lens.
        settings: of the classifiers.

    Returns:
        counts: lenses, matched ones, those with a second host for the floor, and injections to choose from.
        matching: see `matching.match_quality`.
        probe: comparison -> number, from penultimate features; `negatives` is the second class's n.
        pixels: features -> classifier -> number, from pixels and conditions, lenses against injections.
        corner_noise: comparison -> number, from the corners alone.
    """
    rng = np.random.default_rng(settings.seed)
    real, injected, plain = lenses.take(found.lens), injections.take(found.first), controls.take(found.first)
    comparisons = {"lenses_vs_injections": (real, injected), "lenses_vs_controls": (real, plain)}

    classifiers = settings.classifiers
    probe = {name: held_out_auc(a.features, b.features, a, b, classifiers, rng) for name, (a, b) in comparisons.items()}
    return {
        "counts": {
            "lenses": len(lenses),
            "matched": len(real),
            "matched_twice": int((found.second >= 0).sum()),
            "injections": len(injections),
        },
        "matching": match_quality(lenses.photometry, injections.photometry, found),
        "probe": {**probe, "floor": floor_auc(controls, found, settings, rng)},
        "pixels": pixel_aucs(real, injected, settings),
        "corner_noise": {
            name: held_out_auc(_corners(a, classifiers), _corners(b, classifiers), a, b, classifiers, rng)
            for name, (a, b) in comparisons.items()
        },
    }


def held_out_auc(
    first: FloatArray,
    second: FloatArray,
    of_first: Galaxies,
    of_second: Galaxies,
    settings: ShortcutSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """AUC of a logistic regression that tells two classes apart, scored on cells of sky that it was not fitted on.

    Args:
        first, second: features (N, F) and (M, F) of two classes of galaxies.
        of_first, of_second: their cells and hosts.
        settings: folds, fewest members of a class, resamples.
        rng: chooses folds and resamples hosts.

    Returns:
        A number with `negatives`, members of the second class, `hosts` and `cells` of both, and `left_out`, images of
        either class with a feature that is no number. Its interval is from resampling the hosts of the held-out scores:
        that of this probe, whose fit and folds are given.
    """
    scored = _held_out_scores(first, second, of_first, of_second, settings, rng)
    if isinstance(scored, str):
        return _described(not_measurable(len(first), scored), of_first, of_second)
    scores, fold = scored
    known = fold >= 0
    interval = two_sample_bootstrap(
        auc_within(fold),
        scores[: len(first)],
        scores[len(first) :],
        (of_first.host, of_second.host),
        rng,
        settings.bootstraps,
        settings.confidence,
    )
    value = _auc(scores, fold, len(first))
    entry = number(value, int(known[: len(first)].sum()), (interval.low, interval.high))
    return _described(entry, of_first, of_second) | {"left_out": int((~known).sum())}


def floor_auc(controls: Galaxies, found: Match, settings: RealismSettings, rng: np.random.Generator) -> dict[str, Any]:
    """What a probe of the hosts alone finds where there is nothing to find.

    Of each lens's two matched hosts one goes to either side by the toss of a coin; a probe tells the controls of one
    side from those of the other. Repeated, because a single toss of few hosts may give anything.

    Args:
        controls: of all injections.
        found: first and second injection of each lens.
        settings: of the classifiers; how often the coin is tossed.
        rng: tosses it.

    Returns:
        A number: the mean over repeats, and as its interval their central range.
    """
    twice = found.second >= 0
    one, other = found.first[twice], found.second[twice]
    values, sides = [], (controls.take(one), controls.take(other))
    for _ in range(settings.floor_repeats):
        swap = rng.random(len(one)) < 0.5
        sides = controls.take(np.where(swap, one, other)), controls.take(np.where(swap, other, one))
        scored = _held_out_scores(sides[0].features, sides[1].features, *sides, settings.classifiers, rng)
        if isinstance(scored, str):
            return _described(not_measurable(len(one), scored), *sides)
        values.append(_auc(*scored, len(one)))
    tail = (1 - settings.classifiers.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return _described(number(float(np.mean(values)), len(one), (low, high)), *sides) | {"repeats": len(values)}


def _held_out_scores(
    first: FloatArray,
    second: FloatArray,
    of_first: Galaxies,
    of_second: Galaxies,
    settings: ShortcutSettings,
    rng: np.random.Generator,
) -> tuple[FloatArray, NDArray[np.intp]] | str:
    """Scores and folds (N + M,) of the first class, then of the second; or why there are none.

    An image with a feature that is no number is left out, fold -1: any number in its place would tell the classes apart
    where one of them has more such images.
    """
    everything = np.concatenate([first, second]).astype(np.float64)
    known = np.asarray(np.isfinite(everything).all(axis=1))
    features, labels = everything[known], np.repeat([1, 0], (len(first), len(second)))[known]
    cells = np.concatenate([of_first.cell, of_second.cell])[known]
    if min(int(labels.sum()), int((1 - labels).sum())) < settings.min_pairs:
        return f"fewer than {settings.min_pairs}"
    folds = min(settings.folds, *(len(np.unique(cells[labels == label])) for label in (0, 1)))
    if folds < 2:
        return "a class lies in one cell"
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    splits = list(splitter.split(features, labels, cells))
    if any(len(np.unique(labels[part])) < 2 for split in splits for part in split):
        return "a fold has one class only"
    # Small fits wait for their threads far longer than they compute where cores are shared.
    with threadpool_limits(limits=1):
        found = cross_val_predict(logistic_regression(), features, labels, cv=splits, method="decision_function")
    scores, fold = np.zeros(len(known)), np.full(len(known), -1, dtype=np.intp)
    scores[known] = found
    place = np.flatnonzero(known)
    for index, (_, held_out) in enumerate(splits):
        fold[place[held_out]] = index
    return scores, fold


def _auc(scores: FloatArray, fold: NDArray[np.intp], positives: int) -> float:
    weights = (np.arange(len(scores)) < positives).astype(float)[None]
    return float(auc_within(fold)(scores, weights, 1 - weights)[0])


def pixel_aucs(lenses: Galaxies, injections: Galaxies, settings: RealismSettings) -> dict[str, Any]:
    """Data-level twin of the probe: what simple classifiers find in pixels and conditions without any network.

    Args:
        lenses, injections: matched, so that lens i borrows the Einstein radius of injection i, for most have none.
        settings: of the classifiers.

    Returns:
        features (core, radial, annulus, corner_noise, metadata) -> classifier -> number.
    """
    shape = lenses.images.shape[-2:]
    theta_e, psfsize = true_theta_e(injections.rows), column(injections.rows, "psfsize_r")
    known = [name for name in METADATA if all(name in one.rows.column_names for one in (lenses, injections))]
    samples = [
        UnpairedSample(
            np.asarray(one.images, dtype=np.float32),
            geometry(theta_e, psfsize, (shape[0], shape[1]), centre_N2=one.centre, pixel_scale=PIXEL_SCALE),
            np.stack([column(one.rows, name) for name in known], axis=1),
            one.host,
            one.cell,
        )
        for one in (lenses, injections)
    ]
    if len(lenses) < settings.classifiers.min_pairs:
        return {}
    found = measure_unpaired(samples[0], samples[1], settings.classifiers, settings.seed)
    return {
        features: {
            classifier: _described(_as_number(entry, len(lenses)), lenses, injections)
            for classifier, entry in classifiers.items()
        }
        for features, classifiers in found.items()
    }


def two_ways(
    service: Galaxies, coadd: Galaxies, settings: ShortcutSettings, rng: np.random.Generator
) -> dict[str, Any]:
    """What the way of an image to us does to its noise: the same lenses through the service and out of the coadds.

    Args:
        service, coadd: the same lenses in the same order.
        settings: corners and classifiers.
        rng: of intervals and nulls.

    Returns:
        n, corner_noise (classifier -> number), noise_ratio (band -> median ratio of the corners' standard deviations,
        service over coadd) and neighbour_correlation (band -> way -> median correlation of horizontal neighbours).
    """
    noise = [_corners(one, settings) for one in (service, coadd)]
    aucs = shortcut_aucs(noise[0], noise[1], service.host, service.cell, settings, rng)
    ratio, correlation = {}, {}
    for index, band in enumerate(BANDS if len(service) else ""):
        deviation, across = ([values[:, 4 * index + place] for values in noise] for place in (1, 2))
        ratio[band] = float(np.median(deviation[0] / deviation[1]))
        correlation[band] = {"service": float(np.median(across[0])), "coadd": float(np.median(across[1]))}
    return {
        "n": len(service),
        "corner_noise": {name: _as_number(entry, len(service)) for name, entry in aucs.items()},
        "noise_ratio": ratio,
        "neighbour_correlation": correlation,
    }


def _corners(of: Galaxies, settings: ShortcutSettings) -> FloatArray:
    # NumPy has no median of nothing.
    return corner_noise(of.images, settings).astype(np.float64) if len(of) else np.empty((0, 1))


def _as_number(entry: Mapping[str, Any] | str, n: int) -> dict[str, Any]:
    if isinstance(entry, str):
        return not_measurable(n, entry)
    left_out = {"left_out": entry["left_out"]} if "left_out" in entry else {}
    return number(entry["value"], entry["n"], tuple(entry["interval"])) | left_out


def _described(entry: dict[str, Any], first: Galaxies, second: Galaxies) -> dict[str, Any]:
    return entry | {
        "negatives": len(second),
        "hosts": len(np.unique(first.host)) + len(np.unique(second.host)),
        "cells": len(np.union1d(first.cell, second.cell)),
    }
