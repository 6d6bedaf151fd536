"""The selection function of a frozen finder: completeness in every cell of all axes, of each family and of all.

Cells partition the injections: what is unknown or beyond the edges along an axis has a place of its own there, so that
sums over axes lose nothing, and whoever has the cells has the completeness over any choice of axes
(`completeness_lookup`).

Families of sources show how far C depends on what nobody knows of real sources. Their injections share draws of lens,
host and source, so that rows of all of them say no more than one family's: counts of `all` are divided by the rows of
a draw before they make an interval. The envelope holds the intervals of all families.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.evaluation.completeness import Edges, Injections, Sky, bin_of, fractional_interval
from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.intervals import FloatArray
from dark_halo_scope.evaluation.recovered import Recovered

#: What the rows of all families together are called.
ALL = "all"


@dataclass(frozen=True)
class CellSums:
    """Sums over the injections of M cells.

    n, hosts: injections, and galaxies, (M,).
    weight, weight_squared: (M,).
    k, weight_found: of those found, by threshold, (M,).
    """

    n: NDArray[np.int64]
    hosts: NDArray[np.int64]
    weight: FloatArray
    weight_squared: FloatArray
    k: Mapping[str, NDArray[np.int64]]
    weight_found: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Share:
    """A share with its interval, (M,) each, NaN without injections; `worth`: how many trials the interval is of."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    worth: FloatArray


def share_of(found: FloatArray, total: FloatArray, worth: FloatArray, confidence: float) -> Share:
    """found / total, and the Clopper-Pearson interval of as many trials as it is worth.

    Args:
        found, total: counts, or sums of weights, (M,).
        worth: trials that say as much, (M,).
        confidence: of the interval.
    """
    known = np.asarray(total) > 0
    value = np.divide(found, total, out=np.full(np.shape(total), np.nan), where=known)
    low, high = fractional_interval(np.nan_to_num(value) * worth, worth, confidence)
    return Share(value, np.where(known, low, np.nan), np.where(known, high, np.nan), worth)


def effective(weight: FloatArray, weight_squared: FloatArray) -> FloatArray:
    """How many injections of equal weight say as much (Kish 1965)."""
    return np.divide(weight**2, weight_squared, out=np.zeros(np.shape(weight)), where=np.asarray(weight_squared) > 0)


def cell_bins(injections: Injections, edges: Edges) -> NDArray[np.intp]:
    """(N, axes) bin along each axis; the number of bins where a value is unknown or beyond the edges."""
    columns = []
    for name in AXES:
        bins = bin_of(injections.axes[name], edges[name])
        columns.append(np.where(bins < 0, len(edges[name]) - 1, bins))
    return np.stack(columns, axis=1)


def listed_cells(bins: NDArray[np.intp], edges: Edges) -> NDArray[np.intp]:
    """(M, axes) every cell of the grid, with injections or without, then those beyond it that have some."""
    inner = tuple(len(edges[name]) - 1 for name in AXES)
    grid = np.stack(np.unravel_index(np.arange(int(np.prod(inner))), inner), axis=1)
    beyond = np.unique(bins[(bins == np.array(inner)).any(axis=1)], axis=0)
    return np.concatenate([grid, beyond]).astype(np.intp)


def sum_cells(
    injections: Injections,
    found: Mapping[str, NDArray[np.bool_]],
    bins: NDArray[np.intp],
    cells: NDArray[np.intp],
    edges: Edges,
) -> CellSums:
    """Sum injections in listed cells.

    Args:
        injections: N of them.
        found: by threshold, (N,).
        bins: of each injection, (N, axes).
        cells: that are listed, each injection's among them, (M, axes).
        edges: of each axis.
    """
    shape = tuple(len(edges[name]) for name in AXES)  # one more than bins: the place beyond
    keys = np.ravel_multi_index(tuple(cells.T), shape)
    order = np.argsort(keys)
    place = order[np.searchsorted(keys[order], np.ravel_multi_index(tuple(bins.T), shape))]
    m, weight = len(cells), injections.weight
    galaxies = int(injections.host.max()) + 1
    pairs = np.unique(place.astype(np.int64) * galaxies + injections.host)

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(place, weights=values, minlength=m), dtype=float)

    return CellSums(
        np.bincount(place, minlength=m),
        np.bincount(pairs // galaxies, minlength=m),
        total(weight),
        total(weight**2),
        {name: np.bincount(place[hit], minlength=m) for name, hit in found.items()},
        {name: total(weight * hit) for name, hit in found.items()},
    )


def sky_of_cells(cells: NDArray[np.intp], sky: Sky | None, edges: Edges) -> FloatArray:
    """(M,) area of the survey with the observing conditions of each cell; NaN where that is not known."""
    area = np.full(len(cells), np.nan)
    if sky is None:
        return area
    shape = tuple(len(edges[name]) - 1 for name in sky.axes)
    places = cells[:, [AXES.index(name) for name in sky.axes]]
    inside = (places < np.array(shape)).all(axis=1)
    area[inside] = sky.area[np.ravel_multi_index(tuple(places[inside].T), shape)]
    return area


def tabulate(
    recovered: Recovered,
    found: Mapping[str, NDArray[np.bool_]],
    edges: Edges,
    sky: Sky | None,
    min_cell: int,
    confidence: float,
) -> dict[str, NDArray[Any]]:
    """The selection function as columns of equal length: one row for each threshold, family (and `all`) and cell.

    Args:
        recovered: injections of all families.
        found: by threshold, (N,).
        edges: of each axis.
        sky: area by observing conditions.
        min_cell: injections below which a cell is `too few`.
        confidence: of intervals.
    """
    bins = cell_bins(recovered.injections, edges)
    cells = listed_cells(bins, edges)
    shared = recovered.rows_per_draw
    families = [recovered.family == place for place in range(len(recovered.families))]
    sums = {
        name: sum_cells(
            _part(recovered.injections, chosen),
            {key: hit[chosen] for key, hit in found.items()},
            bins[chosen],
            cells,
            edges,
        )
        for name, chosen in zip(recovered.families, families, strict=True)
    }
    sums[ALL] = sum_cells(recovered.injections, found, bins, cells, edges)
    area = sky_of_cells(cells, sky, edges)
    limits = _limits(cells, edges)
    outside = (cells == np.array([len(edges[name]) - 1 for name in AXES])).any(axis=1)
    blocks: list[dict[str, NDArray[Any]]] = []
    for threshold in found:
        shares = {
            name: _shares(part, threshold, shared if name == ALL else 1.0, confidence) for name, part in sums.items()
        }
        around = envelope([shares[name][1] for name in recovered.families])
        nothing = np.full(len(cells), np.nan)
        for name, part in sums.items():
            plain, prior = shares[name]
            flag = np.where(
                outside,
                "outside",
                np.where(
                    part.n == 0, "empty", np.where(part.n < min_cell * (shared if name == ALL else 1.0), "too few", "")
                ),
            )
            block: dict[str, NDArray[Any]] = {
                "threshold": np.full(len(cells), threshold),
                "family": np.full(len(cells), name),
                **limits,
                "sky_area_deg2": area,
                "n": part.n,
                "k": part.k[threshold],
                "hosts": part.hosts,
                "value": plain.value,
                "low": plain.low,
                "high": plain.high,
                "weight": part.weight,
                "weight_found": part.weight_found[threshold],
                "weight_squared": part.weight_squared,
                "n_effective": prior.worth,
                "weighted_value": prior.value,
                "weighted_low": prior.low,
                "weighted_high": prior.high,
            }
            block |= {key: values if name == ALL else nothing for key, values in around.items()}
            blocks.append(block | {"flag": flag})
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def envelope(shares: Sequence[Share]) -> dict[str, FloatArray]:
    """Lowest and highest of the families' values, and of their intervals' ends; NaN where no family has any.

    Args:
        shares: of each family, over the same M cells.
    """
    value, low, high = (np.stack([getattr(share, name) for share in shares]) for name in ("value", "low", "high"))
    known = np.isfinite(value)
    some = known.any(axis=0)

    def end(values: FloatArray, lowest: bool) -> FloatArray:
        filled = np.where(known, values, np.inf if lowest else -np.inf)
        return np.where(some, filled.min(axis=0) if lowest else filled.max(axis=0), np.nan)

    return {
        "families": known.sum(axis=0).astype(float),
        "family_low": end(value, True),
        "family_high": end(value, False),
        "envelope_low": end(low, True),
        "envelope_high": end(high, False),
    }


def _part(injections: Injections, chosen: NDArray[np.bool_]) -> Injections:
    axes = {name: values[chosen] for name, values in injections.axes.items()}
    return Injections(axes, injections.weight[chosen], injections.host[chosen])


def _shares(sums: CellSums, threshold: str, shared: float, confidence: float) -> tuple[Share, Share]:
    """Shares as injected, and under the prior."""
    plain = share_of(sums.k[threshold].astype(float), sums.n.astype(float), sums.n / shared, confidence)
    worth = effective(sums.weight, sums.weight_squared) / shared
    return plain, share_of(sums.weight_found[threshold], sums.weight, worth, confidence)


def _limits(cells: NDArray[np.intp], edges: Edges) -> dict[str, FloatArray]:
    """Edges of each cell, NaN along an axis where it lies beyond."""
    limits = {}
    for place, name in enumerate(AXES):
        ends = np.append(np.asarray(edges[name], dtype=float), np.nan)
        low = np.where(cells[:, place] == len(ends) - 2, np.nan, ends[cells[:, place]])
        limits[f"{name}_low"], limits[f"{name}_high"] = low, ends[cells[:, place] + 1]
    return limits
