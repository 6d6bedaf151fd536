"""Completeness of injections: the share that is found, by cell, with exact intervals, and over the sky.

C(theta_E, z, PSF, depth, host magnitude, lensed magnitude): in bins of each axis, in bins of theta_E and each other
axis, and in the full grid. Injections may come from a proposal that is not the prior: a weight (prior over proposal)
for each then gives the completeness under the prior, beside the plain one, with the effective number of
injections of Kish (1965, Survey Sampling), (sum w)^2 / sum w^2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats

from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.host_resampling import percentile_interval
from dark_halo_scope.evaluation.host_sums import host_sums, resample_together
from dark_halo_scope.evaluation.intervals import FloatArray
from dark_halo_scope.evaluation.number_entry import bounds

#: All cells together, as `axes` of a cell.
NO_AXIS: tuple[str, ...] = ()

#: Injections that a cell of observing conditions needs to count by its area.
MIN_SKY_CELL = 10

Edges = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Injections:
    """N injections that were scored.

    axes: axis -> (N,) values, NaN where unknown.
    weight: prior over proposal, (N,), not negative; ones where injections follow the prior.
    host: number of the galaxy that each was injected into, from 0, (N,).
    """

    axes: Mapping[str, FloatArray]
    weight: FloatArray
    host: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True)
class Cells:
    """Injections counted in M cells of some axes, empty ones included or not.

    axes: the axes that the cells divide.
    bin: (M, axes) bin along each.
    n, k: injections, and found ones, (M,).
    hosts: distinct galaxies, (M,).
    weight, weight_found, weight_squared: sums over injections, (M,).
    """

    axes: tuple[str, ...]
    bin: NDArray[np.intp]
    n: NDArray[np.int64]
    k: NDArray[np.int64]
    hosts: NDArray[np.int64]
    weight: FloatArray
    weight_found: FloatArray
    weight_squared: FloatArray

    @property
    def n_effective(self) -> FloatArray:
        """(M,) how many injections of equal weight would say as much."""
        return _ratio(self.weight**2, self.weight_squared, 0.0)


def bin_of(values: FloatArray, edges: Sequence[float]) -> NDArray[np.intp]:
    """(N,) bin of each value, -1 outside and where unknown; the last edge belongs to the last bin."""
    limits = np.asarray(edges, dtype=float)
    bins = np.searchsorted(limits, values, side="right") - 1
    bins[values == limits[-1]] = len(limits) - 2
    bins[~(values >= limits[0]) | (values > limits[-1])] = -1
    return bins


def outside(injections: Injections, edges: Edges) -> dict[str, dict[str, int]]:
    """For each axis, how many injections have no value and how many lie beyond its edges."""
    counts = {}
    for name in AXES:
        values = injections.axes[name]
        unknown = int(np.isnan(values).sum())
        counts[name] = {"unknown": unknown, "outside": int((bin_of(values, edges[name]) < 0).sum()) - unknown}
    return counts


def count_cells(
    injections: Injections, found: NDArray[np.bool_], edges: Edges, axes: tuple[str, ...], empty: bool = True
) -> Cells:
    """Count injections in the cells of some axes; those outside any of these axes are in no cell.

    Args:
        injections: N of them.
        found: (N,) whether each is detected.
        edges: of each axis.
        axes: that divide; none is one cell for all.
        empty: whether cells without injections are listed too.
    """
    shape = tuple(len(edges[name]) - 1 for name in axes)
    bins = [bin_of(injections.axes[name], edges[name]) for name in axes]
    inside = np.all([index >= 0 for index in bins], axis=0) if axes else np.ones(len(injections), dtype=bool)
    cell = np.zeros(int(inside.sum()), dtype=np.intp)
    if axes:
        cell = np.ravel_multi_index([index[inside] for index in bins], shape).astype(np.intp)
    listed, place = np.unique(cell, return_inverse=True)
    if empty:
        listed, place = np.arange(int(np.prod(shape, dtype=np.int64))), cell
    m = len(listed)
    weight, hit = injections.weight[inside], found[inside].astype(float)
    # A number for each galaxy in each cell.
    galaxies = int(injections.host.max(initial=0)) + 1
    pairs = np.unique(place.astype(np.int64) * galaxies + injections.host[inside])
    return Cells(
        axes,
        np.stack(np.unravel_index(listed, shape), axis=1) if axes else np.zeros((1, 0), dtype=np.intp),
        np.bincount(place, minlength=m),
        np.bincount(place, weights=hit, minlength=m).astype(np.int64),
        np.bincount(pairs // galaxies, minlength=m),
        _sums(place, weight, m),
        _sums(place, weight * hit, m),
        _sums(place, weight**2, m),
    )


def cell_rows(
    cells: Cells, edges: Edges, min_cell: int, confidence: float, shared: float = 1.0
) -> list[dict[str, Any]]:
    """Cells as rows of a table, one dictionary each.

    `value` is k/n with its Clopper-Pearson interval; `weighted_value` is the share under the prior, with the interval
    of as many injections as its weights are worth. `flag` is `empty`, `too few`, or nothing.

    Args:
        cells: M of them.
        edges: of each axis.
        min_cell: draws below which a cell is `too few`.
        confidence: of intervals.
        shared: injections that share a draw of lens and source, and say no more than one: intervals, `n_effective` and
            `too few` count draws, `n` and `k` injections.
    """
    low, high = fractional_interval(cells.k / shared, cells.n / shared, confidence)
    share = _ratio(cells.weight_found, cells.weight, np.nan)
    worth = cells.n_effective / shared
    weighted_low, weighted_high = fractional_interval(np.nan_to_num(share) * worth, worth, confidence)
    rows = []
    for i in range(len(cells.n)):
        row: dict[str, Any] = {"axes": " x ".join(cells.axes) or "all"}
        for name in AXES:
            place = cells.axes.index(name) if name in cells.axes else None
            limits = (None, None) if place is None else edges[name][cells.bin[i, place] : cells.bin[i, place] + 2]
            row |= dict(zip((f"{name}_low", f"{name}_high"), limits, strict=True))
        empty = cells.n[i] == 0
        row |= {
            "n": int(cells.n[i]),
            "k": int(cells.k[i]),
            "hosts": int(cells.hosts[i]),
            "value": None if empty else float(cells.k[i] / cells.n[i]),
            "low": None if empty else float(low[i]),
            "high": None if empty else float(high[i]),
            "n_effective": float(worth[i]),
            "weighted_value": None if worth[i] == 0 else float(share[i]),
            "weighted_low": None if worth[i] == 0 else float(weighted_low[i]),
            "weighted_high": None if worth[i] == 0 else float(weighted_high[i]),
            "flag": "empty" if empty else "too few" if cells.n[i] < min_cell * shared else "",
        }
        rows.append(row)
    return rows


def fractional_interval(successes: ArrayLike, trials: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Bounds of Clopper & Pearson's interval for counts that are no integers, by the same beta quantiles.

    Args:
        successes: any shape; what rounding puts outside the range of `trials` is moved into it.
        trials: of the same shape, not negative; 0 trials give [0, 1].
        confidence: coverage that whole counts would have at least.
    """
    tail, n = (1 - confidence) / 2, np.asarray(trials, dtype=float)
    k = np.clip(np.asarray(successes, dtype=float), 0, n)
    some, rest = k > 0, k < n
    low = np.where(some, stats.beta.ppf(tail, np.where(some, k, 1), n - k + 1), 0.0)
    high = np.where(rest, stats.beta.ppf(1 - tail, k + 1, np.where(rest, n - k, 1)), 1.0)
    return low, high


def all_cells(injections: Injections, found: NDArray[np.bool_], edges: Edges) -> list[Cells]:
    """Everything that is tabulated: all, each axis, the first axis with each other, and the full grid without gaps."""
    first, *others = AXES
    tables = [NO_AXIS, *((name,) for name in AXES), *((first, name) for name in others)]
    counted = [count_cells(injections, found, edges, axes) for axes in tables]
    return [*counted, count_cells(injections, found, edges, AXES, empty=False)]


@dataclass(frozen=True)
class Sky:
    """Area of the sky by observing conditions.

    axes: that its cells divide.
    area: (cells,) in any unit, in the order of cells raveled by axis.
    """

    axes: tuple[str, ...]
    area: FloatArray


def sky_area(conditions: Mapping[str, FloatArray], area: FloatArray, edges: Edges) -> Sky:
    """Area in the cells of the conditions; what lies beyond the edges is in none.

    Args:
        conditions: axis -> value of each brick, (M,).
        area: of each brick, (M,).
        edges: of each axis.
    """
    axes = tuple(conditions)
    group, cells = _groups(conditions, edges)
    inside = group >= 0
    return Sky(axes, _sums(group[inside], area[inside], cells))


def mean_entries(
    injections: Injections,
    found: NDArray[np.bool_],
    edges: Edges,
    sky: Sky | None,
    confidence: float,
    bootstraps: int,
    rng: np.random.Generator,
    shared: float = 1.0,
) -> dict[str, dict[str, Any]]:
    """Completeness of all injections: as injected, under the prior, over the sky's area, and both.

    Area weighting is post-stratification: the completeness of each cell of observing conditions counts by the area
    that the survey has there. Cells with fewer than MIN_SKY_CELL injections cannot speak for their part of the sky;
    `area_covered` says how much is left. `n_effective` is of the weights that injections have in the end, that of
    their cell's area included, and counts `shared` injections of one draw as one.
    Intervals resample hosts.
    """
    hits = found.astype(float)
    together = np.zeros(len(injections), dtype=np.intp)
    ones = np.ones(len(injections))
    entries = {}
    for name, weight in (("as_injected", ones), ("prior_weighted", injections.weight)):
        entries[name] = _mean_entry(injections, hits, weight, together, np.ones(1), confidence, bootstraps, rng, shared)
    for name, weight in (("area_weighted", ones), ("area_and_prior_weighted", injections.weight)):
        if sky is None:
            entries[name] = _entry(None, len(injections), None, "not measurable: no survey was given")
            continue
        group, _ = _groups({axis: injections.axes[axis] for axis in sky.axes}, edges)
        entries[name] = _mean_entry(injections, hits, weight, group, sky.area, confidence, bootstraps, rng, shared)
    return entries


def _mean_entry(
    injections: Injections,
    hits: FloatArray,
    weight: FloatArray,
    group: NDArray[np.intp],
    sky_area: FloatArray,
    confidence: float,
    bootstraps: int,
    rng: np.random.Generator,
    shared: float,
) -> dict[str, Any]:
    groups = len(sky_area)
    count = np.bincount(group[group >= 0], minlength=groups)
    area = np.where(count >= (MIN_SKY_CELL if groups > 1 else 1), sky_area, 0.0)
    total = host_sums(weight, group, injections.host, groups)
    got = host_sums(weight * hits, group, injections.host, groups)
    covered = (_column_sums(total) > 0) & (area > 0)
    kept = int((group >= 0).sum())
    if not covered.any():
        return _entry(None, kept, None, "not measurable: too few injections in conditions that the sky has")

    def mean(total_BK: FloatArray, got_BK: FloatArray) -> FloatArray:
        # A resample may miss a cell: its area then counts for nothing, as that of cells without injections does.
        share = _ratio(got_BK, total_BK, 0.0)
        here = np.where(total_BK > 0, area, 0.0)
        return _ratio((share * here).sum(axis=1), here.sum(axis=1), np.nan)

    value = mean(_column_sums(total)[None], _column_sums(got)[None])[0]
    total_BK, got_BK = resample_together((total, got), rng, bootstraps)
    around = percentile_interval(mean(total_BK, got_BK), confidence)
    per_weight = np.where(covered, _ratio(area, _column_sums(total), 0.0), 0.0)
    final = np.where(group >= 0, weight * per_weight[group], 0.0)
    extra: dict[str, Any] = {
        "n_effective": float(final.sum() ** 2 / (final**2).sum() / shared),
        "hosts": len(np.unique(injections.host[group >= 0])),
    }
    if groups > 1:
        extra["area_covered"] = float(area[covered].sum() / sky_area.sum())
    return _entry(float(value), kept, bounds(around), "measured") | extra


def host_intervals(
    injections: Injections,
    found: NDArray[np.bool_],
    edges: Edges,
    confidence: float,
    bootstraps: int,
    rng: np.random.Generator,
) -> dict[str, list[list[float] | None]]:
    """For each axis, intervals of the share found in its bins from resampling hosts; None without injections.

    Arcs on one galaxy share its pixels. Clopper-Pearson takes them for independent, and this does not.
    """
    ones, hits = np.ones(len(found)), found.astype(float)
    sums = [
        host_sums(values, bin_of(injections.axes[name], edges[name]), injections.host, len(edges[name]) - 1)
        for name in AXES
        for values in (ones, hits)
    ]
    drawn = resample_together(sums, rng, bootstraps)
    intervals: dict[str, list[list[float] | None]] = {}
    for place, name in enumerate(AXES):
        shares = _ratio(drawn[2 * place + 1], drawn[2 * place], np.nan)
        intervals[name] = []
        for column, n in zip(shares.T, _column_sums(sums[2 * place]), strict=True):
            intervals[name].append(bounds(percentile_interval(column, confidence)) if n else None)
    return intervals


def _column_sums(sums_HK: sparse.csr_array) -> FloatArray:
    return np.asarray(sums_HK.sum(axis=0), dtype=float).ravel()


def _groups(values: Mapping[str, FloatArray], edges: Edges) -> tuple[NDArray[np.intp], int]:
    """(N,) raveled cell of each row, -1 outside, and the number of cells."""
    shape = tuple(len(edges[name]) - 1 for name in values)
    bins = np.stack([bin_of(column, edges[name]) for name, column in values.items()])
    inside = np.all(bins >= 0, axis=0)
    group = np.ravel_multi_index(tuple(np.maximum(bins, 0)), shape)
    return np.where(inside, group, -1).astype(np.intp), int(np.prod(shape))


def _sums(group: NDArray[np.intp], values: FloatArray, groups: int) -> FloatArray:
    return np.asarray(np.bincount(group, weights=values, minlength=groups), dtype=float)


def _ratio(numerator: FloatArray, denominator: FloatArray, otherwise: float) -> FloatArray:
    out = np.full(np.shape(numerator), otherwise, dtype=float)
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


def _entry(value: float | None, n: int, interval: list[float] | None, status: str) -> dict[str, Any]:
    return {"value": value, "n": n, "interval": interval, "status": status}


def number(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A cell of one axis as a number of a JSON result."""
    if row["value"] is None:
        entry = _entry(None, 0, None, "not measurable: no injection")
    else:
        entry = _entry(row["value"], row["n"], [row["low"], row["high"]], "measured")
    keys = ("k", "hosts", "n_effective", "weighted_value", "flag")
    return {"low": row[f"{name}_low"], "high": row[f"{name}_high"]} | entry | {key: row[key] for key in keys}
