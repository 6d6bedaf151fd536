"""A smooth completeness over two axes, the others as the injections have them, with its uncertainty.

Logistic regression on the tensor product of cubic B-splines, with a small penalty. A Gaussian process would need the
inverse of a matrix with a row for each injection, and cells have steps that the sky does not have. Injections are
counted in fine cells first, so that a million cost no more than a thousand, and host resamples refit the counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import SplineTransformer

from dark_halo_scope.evaluation.completeness_config import SurfaceSettings
from dark_halo_scope.evaluation.host_sums import host_sums, resample
from dark_halo_scope.evaluation.intervals import FloatArray

_DEGREE = 3
#: Scale of what is not to be penalised.
_FREE = 30.0


@dataclass(frozen=True)
class Surface:
    """Completeness on a grid.

    first, second: positions along the two axes, (I,) and (J,).
    value, low, high, sd: (I, J).
    n: injections that it was fitted to.
    """

    first: FloatArray
    second: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    sd: FloatArray
    n: int


def problem(found: NDArray[np.bool_], settings: SurfaceSettings) -> str | None:
    """Why there can be no surface; None where there can."""
    hits = int(found.sum())
    for count, what in ((hits, "found"), (len(found) - hits, "not found")):
        if count < settings.min_class:
            return f"not measurable: {count} injections {what}, {settings.min_class} are needed"
    return None


def fit_surface(
    first: FloatArray,
    second: FloatArray,
    found: NDArray[np.bool_],
    weight: FloatArray,
    host: NDArray[np.integer],
    limits: Sequence[tuple[float, float]],
    settings: SurfaceSettings,
    confidence: float,
    rng: np.random.Generator,
) -> Surface:
    """Fit the smooth completeness and its host bootstrap.

    Args:
        first, second: values along the two axes, inside the limits, (N,).
        found: whether each injection is detected, (N,).
        weight: of each injection, not negative, (N,).
        host: number of the galaxy of each, from 0, (N,).
        limits: lowest and highest value of each axis: of knots and grid.
        settings: splines, penalty, resolution.
        confidence: of the intervals at each point.
        rng: draws hosts.
    """
    places, cell = _fine_cells((first, second), limits, settings)
    # So that the penalty weighs as much as it would without weights: in injections, not in weights.
    scaled = weight * weight.sum() / (weight**2).sum()
    cells = len(places)
    counted = np.concatenate([np.where(found, scaled, 0.0), np.where(found, 0.0, scaled)])
    sums = host_sums(counted, np.concatenate([cell, cell + cells]), np.tile(host, 2), 2 * cells)
    splines = [
        SplineTransformer(n_knots=knots, degree=_DEGREE, extrapolation="constant").fit(np.array(limit)[:, None])
        for knots, limit in zip(settings.knots, limits, strict=True)
    ]
    grid = [np.linspace(low, high, points) for (low, high), points in zip(limits, settings.grid, strict=True)]
    mesh = np.stack([axis.ravel() for axis in np.meshgrid(*grid, indexing="ij")], axis=1)
    at_cells, at_grid = _products(splines, places), _products(splines, mesh)

    def fitted(counts: FloatArray) -> FloatArray:
        regression = LogisticRegression(C=1 / settings.penalty, solver="newton-cholesky", max_iter=200)
        used = counts > 0
        labels = np.repeat([1, 0], cells)[used]
        regression.fit(np.concatenate([at_cells, at_cells])[used], labels, sample_weight=counts[used])
        return np.asarray(regression.decision_function(at_grid))

    best = fitted(np.asarray(sums.sum(axis=0), dtype=float).ravel())
    # A resample in which everything is found, or nothing, has nothing to fit.
    draws = [row for row in resample(sums, rng, settings.bootstraps) if row[:cells].any() and row[cells:].any()]
    replicates = np.stack([fitted(row) for row in draws])
    # On the logit, where resamples are close to normal and no interval leaves [0, 1].
    half = stats.norm.ppf(0.5 + confidence / 2) * replicates.std(axis=0, ddof=1)
    spread = expit(replicates).std(axis=0, ddof=1)
    shape = (len(grid[0]), len(grid[1]))
    value, low, high, sd = (
        column.reshape(shape) for column in (expit(best), expit(best - half), expit(best + half), spread)
    )
    return Surface(grid[0], grid[1], value, low, high, sd, len(found))


def _fine_cells(
    values: Sequence[FloatArray], limits: Sequence[tuple[float, float]], settings: SurfaceSettings
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Mean position of the injections in each fine cell that has some, (M, 2), and the cell of each injection, (N,)."""
    bins = [
        np.clip(((axis - low) / (high - low) * count).astype(np.intp), 0, count - 1)
        for axis, (low, high), count in zip(values, limits, settings.fine_cells, strict=True)
    ]
    raveled = np.ravel_multi_index((bins[0], bins[1]), settings.fine_cells)
    _, cell = np.unique(raveled, return_inverse=True)
    count = np.bincount(cell)
    places = np.stack([np.bincount(cell, weights=axis) / count for axis in values], axis=1)
    return places, cell.astype(np.intp)


def _products(splines: Sequence[SplineTransformer], places_N2: FloatArray) -> FloatArray:
    """(N, A * B + 3) products of a spline of the first axis and one of the second, and the two axes and their product.

    The latter are so large that the penalty hardly sees them: it draws towards a logit that is bilinear, and not
    towards a completeness that is the same everywhere.
    """
    first, second = (spline.transform(places_N2[:, [i]]) for i, spline in enumerate(splines))
    products = (first[:, :, None] * second[:, None, :]).reshape(len(places_N2), -1)
    ends = np.array([spline.bsplines_[0].t[[_DEGREE, -_DEGREE - 1]] for spline in splines])
    x, y = (2 * (places_N2 - ends[:, 0]) / (ends[:, 1] - ends[:, 0]) - 1).T
    return np.concatenate([products, _FREE * np.stack([x, y, x * y], axis=1)], axis=1)
