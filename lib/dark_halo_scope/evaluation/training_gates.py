"""Gates of real images before training: which stop it, and which are reported. Pure functions of rows and images.

A gate is a mapping with `passed` and the numbers behind it; one that could not be measured has `passed` None. Numbers
of a sample carry an interval. Critical gates (pixels, shape, splits, overlap, weights) refuse the dataset; the others
say how well simple classifiers tell classes apart without looking at arcs, and refuse it by option only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.catalogue.crossmatch import close_pairs, separation
from dark_halo_scope.catalogue.splits import SPLITS, healpix_cell, split_of_cells
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.shortcuts import TOO_FEW, Images, UnpairedSample, measure_unpaired
from dark_halo_scope.evaluation.training_gates_config import TrainingGateSettings
from dark_halo_scope.survey.names import PIXEL_SCALE

Gate = dict[str, Any]

CLASSES = {"positives": 1, "negatives": 0}

METADATA = (*("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_g", "psfdepth_r", "psfdepth_z", "ebv", "nobs_z"),)
"""Observing conditions by which classes should not differ."""

# Radii in pixels between which arcs lie: there classes are meant to differ, and no flag is raised.
_ARCS = (4.0, 16.0)
_EXEMPT = "annulus"
_FEATURES = ("core", "radial", "annulus", "corner_noise", "metadata")


class Rows:
    """Columns of every row, as arrays (N,): galaxy_id, brickname, tier, split, pixel_path; label, ra, dec, cell,
    sample_weight, usable."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self.galaxy_id, self.tier, self.split, self.pixel_path = (
            np.asarray(columns[name], dtype=str) for name in ("galaxy_id", "tier", "split", "pixel_path")
        )
        self.label = np.asarray(columns["label"], dtype=np.int64)
        self.cell = np.asarray(columns["healpix_128"], dtype=np.int64)
        self.ra, self.dec, self.sample_weight = (
            np.asarray(columns[name], dtype=np.float64) for name in ("ra", "dec", "sample_weight")
        )
        self.usable = np.asarray(columns["cutout_ok"]) == 1

    def __len__(self) -> int:
        return len(self.label)

    def of(self, name: str) -> NDArray[np.bool_]:
        """Rows of one of `CLASSES`."""
        return self.label == CLASSES[name]


def cutouts_gate(rows: Rows, settings: TrainingGateSettings) -> Gate:
    """Share of each class without a usable cutout; the plan has none of the positives so."""
    limits = {"positives": settings.max_failed_positives, "negatives": settings.max_failed_negatives}
    classes: dict[str, Any] = {}
    for name, limit in limits.items():
        count, failed = int(rows.of(name).sum()), int((rows.of(name) & ~rows.usable).sum())
        classes[name] = {"rows": count, "failed": failed, "share": failed / count if count else None, "limit": limit}
    passed = all(one["rows"] > one["failed"] and one["share"] <= one["limit"] for one in classes.values())
    return {"passed": passed, "all_positives_usable": classes["positives"]["failed"] == 0} | classes


def path_gate(rows: Rows) -> Gate:
    """All pixels from one path: a second one leaves its own noise."""
    paths = sorted(set(rows.pixel_path.tolist()))
    return {"passed": len(paths) == 1, "paths": paths}


def splits_gate(rows: Rows, settings: TrainingGateSettings) -> Gate:
    """Share of each class's usable rows in each split."""
    passed = True
    classes: dict[str, Any] = {}
    for name in CLASSES:
        here = rows.split[rows.of(name) & rows.usable]
        classes[name] = {"n": len(here)}
        for split in SPLITS:
            low, high = getattr(settings.splits, split)
            share = float(np.mean(here == split)) if len(here) else 0.0
            classes[name][split] = {"share": share, "range": [low, high], "passed": low <= share <= high}
            passed &= low <= share <= high
    return {"passed": passed, "on_failure": settings.splits.on_failure, "reason": settings.splits.reason} | classes


def overlap_gate(rows: Rows, settings: TrainingGateSettings, split_seed: int) -> Gate:
    """Whether a galaxy is there twice, in both classes or in two splits, by name or by place; and cells and splits."""
    counts = np.unique(rows.galaxy_id, return_counts=True)[1]
    both = np.intersect1d(rows.galaxy_id[rows.of("positives")], rows.galaxy_id[rows.of("negatives")])
    pairs = close_pairs(rows.ra, rows.dec, settings.same_object_arcsec)
    one, other = pairs[:, 0], pairs[:, 1]
    close = separation(rows.ra[one], rows.dec[one], rows.ra[other], rows.dec[other]) <= settings.same_object_arcsec
    one, other = one[close], other[close]
    cells = healpix_cell(rows.ra, rows.dec)
    first = np.unique(np.stack([rows.cell, np.unique(rows.split, return_inverse=True)[1]], axis=1), axis=0)[:, 0]
    found = {
        "galaxies_twice": int((counts > 1).sum()),
        "galaxies_in_both_classes": len(both),
        "objects_in_both_classes": int((rows.label[one] != rows.label[other]).sum()),
        "objects_in_two_splits": int((rows.split[one] != rows.split[other]).sum()),
        "cells_in_two_splits": len(first) - len(np.unique(first)),
        "rows_of_another_cell": int((rows.cell != cells).sum()),
        "rows_of_another_split": int((rows.split != split_of_cells(cells, split_seed)).sum()),
    }
    return {"passed": not any(found.values())} | found


def weights_gate(rows: Rows, settings: TrainingGateSettings) -> Gate:
    """Weights of tiers and negatives, and whether labels agree with tiers."""
    weight, low_high = rows.sample_weight, settings.weight_b
    positive = rows.of("positives")
    wrong = {
        "A": positive & (rows.tier == "A") & (weight != settings.weight_a),
        "B": positive & (rows.tier == "B") & ~((weight >= low_high[0]) & (weight <= low_high[1])),
        "negatives": rows.of("negatives") & (weight != settings.weight_negative),
        "of_no_tier": (positive & ~np.isin(rows.tier, ["A", "B"]))
        | (rows.of("negatives") & np.isin(rows.tier, ["A", "B"]))
        | ~np.isin(rows.label, list(CLASSES.values())),
    }
    counts = {name: int(mask.sum()) for name, mask in wrong.items()}
    return {"passed": not any(counts.values()), "wrong": counts}


def pixels_gate(decoded: int, unreadable: int, not_finite: int) -> Gate:
    """Whether decoded cutouts are whole: of the size they should have, and finite everywhere."""
    return {
        "passed": unreadable == 0 and not_finite == 0 and decoded > 0,
        "decoded": decoded,
        "unreadable_or_of_another_shape": unreadable,
        "not_finite": not_finite,
    }


def unpaired_sample(
    images: Images, metadata: NDArray[np.float64], cell: NDArray[np.int64], index: NDArray[np.intp]
) -> UnpairedSample:
    """Images (N, 3, H, W) of one class, with the annulus in which arcs lie whatever the lens."""
    middle, half = (_ARCS[0] + _ARCS[1]) / 2 * PIXEL_SCALE, (_ARCS[1] - _ARCS[0]) / 2 * PIXEL_SCALE
    count = len(images)
    where = geometry(np.full(count, middle), np.full(count, half), images.shape[-2:], pixel_scale=PIXEL_SCALE)
    return UnpairedSample(images, where, metadata, index, cell)


def core_brightness(
    positive: Images, negative: Images, settings: TrainingGateSettings, rng: np.random.Generator
) -> Gate:
    """Ratio of the classes' mean flux within the core, all bands together, with a bootstrap interval over galaxies."""
    size = positive.shape[-1] if len(positive) else 1
    axis = np.arange(size) - (size - 1) / 2
    core = np.hypot(axis[:, None], axis[None]) < settings.core_radius_pixels
    fluxes = [one[:, :, core].sum(axis=(1, 2), dtype=np.float64) for one in (positive, negative) if len(one)]
    if len(fluxes) < 2 or fluxes[1].mean() <= 0:
        return {"passed": None, "ratio": None, "interval": None}
    ratio = fluxes[0].mean() / fluxes[1].mean()
    drawn = [rng.choice(flux, (settings.shortcuts.bootstraps, len(flux))).mean(axis=1) for flux in fluxes]
    tail = (1 - settings.shortcuts.confidence) / 2
    low, high = np.quantile(drawn[0] / drawn[1], [tail, 1 - tail])
    lowest, highest = settings.core_brightness
    return {
        "passed": bool(lowest <= ratio <= highest),
        "ratio": float(ratio),
        "interval": [float(low), float(high)],
        "range": [lowest, highest],
        "n": [len(flux) for flux in fluxes],
    }


def reported_gates(
    positive: UnpairedSample, negative: UnpairedSample, settings: TrainingGateSettings
) -> dict[str, Gate]:
    """What tells classes apart without arcs: core, corners, observing conditions, and features with flags."""
    aucs: dict[str, Any] = {name: {"logistic": TOO_FEW, "boosting": TOO_FEW} for name in _FEATURES}
    if min(len(positive.images), len(negative.images)) >= settings.shortcuts.min_pairs:
        aucs = measure_unpaired(positive, negative, settings.shortcuts, settings.seed)
    rng = np.random.default_rng([settings.seed, 2])
    flags = {
        f"{feature} {model}": flag
        for feature, models in aucs.items()
        if feature != _EXEMPT
        for model, auc in models.items()
        if (flag := _flag(auc, settings)) is not None
    }
    return {
        "core_auc": _auc_gate(aucs["core"], settings.max_core_auc),
        "core_brightness": core_brightness(positive.images, negative.images, settings, rng),
        "corner_noise_auc": _auc_gate(aucs["corner_noise"], settings.yellow_auc),
        "metadata_auc": _auc_gate(aucs["metadata"], settings.yellow_auc),
        "feature_auc": {
            "passed": None if not _measured(aucs) else "red" not in flags.values(),
            "flags": flags,
            "exempt": _EXEMPT,
            "auc": aucs,
        },
    }


def _measured(aucs: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(isinstance(auc, Mapping) for models in aucs.values() for auc in models.values())


def _auc_gate(models: Mapping[str, Any], limit: float) -> Gate:
    values = [auc["value"] for auc in models.values() if isinstance(auc, Mapping)]
    return {"passed": None if not values else max(values) <= limit, "limit": limit, "auc": dict(models)}


def _flag(auc: Any, settings: TrainingGateSettings) -> str | None:
    if not isinstance(auc, Mapping) or auc["interval"][0] <= settings.yellow_auc:
        return None
    return "red" if auc["interval"][0] > settings.red_auc else "yellow"


def refusals(
    critical: Mapping[str, Gate], reported: Mapping[str, Gate], settings: TrainingGateSettings
) -> tuple[list[str], list[str]]:
    """Why training must not start, and what a user should know beside it: one sentence each."""
    texts = {
        "cutouts": "too many cutouts are not usable",
        "path": "pixels come from more than one path",
        "pixels": "decoded cutouts are not readable, not finite or of another shape",
        "splits": "splits have other shares of a class than they should",
        "overlap": "a galaxy is in both classes, in two splits or twice, or a row is in a split that is not its cell's",
        "weights": "weights are not those of the tiers",
    }
    reasons, notes = [], []
    for name, gate in critical.items():
        if gate["passed"]:
            continue
        sentence = f"{texts[name]} ({_told(gate)})"
        if gate.get("on_failure") == "report":
            notes.append(f"{sentence}; it does not stop training because {gate['reason']}")
        else:
            reasons.append(sentence)
    for name, gate in reported.items():
        if gate["passed"] is False:
            (reasons if name in settings.stop_on else notes).append(f"the gate {name} fails")
        elif gate["passed"] is None and name in settings.stop_on:
            # A gate that was asked for and has nothing to measure is closed.
            reasons.append(f"the gate {name} could not be measured: too few galaxies")
    return reasons, notes


def _told(gate: Gate) -> str:
    """The numbers of a gate that are not as they should be, in one line."""
    if "wrong" in gate:
        return ", ".join(f"{name}: {count}" for name, count in gate["wrong"].items() if count)
    if "paths" in gate:
        return ", ".join(gate["paths"])
    parts = []
    for name in CLASSES:
        one = gate.get(name)
        if isinstance(one, Mapping) and "share" in one:
            parts.append(f"{one['failed']} of {one['rows']} {name}")
        elif isinstance(one, Mapping):
            parts += [f"{name} {s} {one[s]['share']:.3f}" for s in SPLITS if not one[s]["passed"]]
    counts = [
        f"{name}: {value}" for name, value in gate.items() if isinstance(value, int) and value and name != "passed"
    ]
    return ", ".join(parts or [text for text in counts if not text.startswith(("decoded", "all_positives"))])


def sampled(rows: Rows, ranks: NDArray[np.uint64], name: str, count: int) -> NDArray[np.intp]:
    """Up to `count` usable rows of a class, those of the lowest ranks, in the order of their ranks."""
    here = np.flatnonzero(rows.of(name) & rows.usable)
    return here[np.argsort(ranks[here], kind="stable")][:count]


def chunks(indices: NDArray[np.intp], size: int) -> Sequence[NDArray[np.intp]]:
    """The indices, at most `size` at a time."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]
