"""Distributions that lenses and sources are drawn from: each a map from uniform numbers, so that draws never interact.

Reweighted magnitudes
---------------------
A small survey has too few arcs to waste on invisible ones. With `target_arc_snr` set, a task carries an arc_snr drawn
log-uniformly, and whoever renders it scales the unlensed flux until the matched-filter arc_snr over g, r, z (shot noise
of the arc left out) equals it. Because arc_snr is proportional to flux, this draws the magnitude uniformly from an
interval of 2.5 log10(high/low) magnitudes whose place depends on the other parameters. The weight that turns such a
sample back into the prior is prior density / proposal density,

    w = p(m | r_eff) * 2.5 log10(high / low),    p(m | r_eff) = p(m) p(r_eff | m) / integral p(m') p(r_eff | m') dm',

`magnitude_weight` below; it is zero where the prior has no galaxy of that magnitude.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from dark_halo_scope.injection.config import (
    ArcSnrRange,
    ColourPrior,
    LensPrior,
    MagnitudePrior,
    ManifestSettings,
    SizePrior,
    SourceShapePrior,
    ThetaEPrior,
)

Array = NDArray[np.float64]

_LN10 = float(np.log(10.0))
_QUADRATURE_POINTS = 257


def theta_e(u_N: Array, prior: ThetaEPrior) -> Array:
    """(N,) Einstein radii in arcsec from uniform numbers in [0, 1)."""
    if prior.distribution == "uniform":
        return prior.low + u_N * (prior.high - prior.low)
    return prior.low * (prior.high / prior.low) ** u_N


def magnitude(u_N: Array, prior: MagnitudePrior) -> Array:
    """(N,) unlensed r magnitudes by inversion of the cumulative number counts."""
    k = prior.slope * _LN10
    return prior.bright + np.log1p(u_N * np.expm1(k * (prior.faint - prior.bright))) / k


def magnitude_density(mag_N: ArrayLike, prior: MagnitudePrior) -> Array:
    """Prior density per magnitude, zero outside the limits."""
    mag_N = np.asarray(mag_N, dtype=np.float64)
    k = prior.slope * _LN10
    density_N = k * np.exp(k * (mag_N - prior.bright)) / np.expm1(k * (prior.faint - prior.bright))
    return np.where((mag_N >= prior.bright) & (mag_N <= prior.faint), density_N, 0.0)


def size(u_N: Array, mag_N: Array, prior: SizePrior) -> Array:
    """(N,) half-light radii in arcsec of sources of these r magnitudes."""
    centre_N = _log_median_size(mag_N, prior)
    low_N = ndtr((np.log10(prior.low) - centre_N) / prior.scatter_dex)
    high_N = ndtr((np.log10(prior.high) - centre_N) / prior.scatter_dex)
    return np.clip(10 ** (centre_N + prior.scatter_dex * ndtri(low_N + u_N * (high_N - low_N))), prior.low, prior.high)


def size_density(reff_N: ArrayLike, mag_N: ArrayLike, prior: SizePrior) -> Array:
    """Prior density per dex of half-light radius at given magnitude, zero outside the limits. Broadcasts."""
    log_N, centre_N = np.log10(np.asarray(reff_N, dtype=np.float64)), _log_median_size(mag_N, prior)
    inside_N = ndtr((np.log10(prior.high) - centre_N) / prior.scatter_dex) - ndtr(
        (np.log10(prior.low) - centre_N) / prior.scatter_dex
    )
    bell_N = np.exp(-0.5 * ((log_N - centre_N) / prior.scatter_dex) ** 2) / (np.sqrt(2 * np.pi) * prior.scatter_dex)
    # The limits themselves are inside, also after a round trip through logarithms.
    outside_N = (log_N < np.log10(prior.low) - 1e-12) | (log_N > np.log10(prior.high) + 1e-12)
    return np.where(outside_N, 0.0, bell_N / inside_N)


def colours(u_gr_N: Array, u_rz_N: Array, prior: ColourPrior) -> tuple[Array, Array]:
    """(N,) g - r and (N,) r - z, correlated; cut at the limits by resampling the tails' probability."""
    gr_N = _truncated_normal(u_gr_N, prior.gr_mean, prior.gr_scatter, prior.low, prior.high)
    rho = prior.correlation
    mean_N = prior.rz_mean + rho * prior.rz_scatter * (gr_N - prior.gr_mean) / prior.gr_scatter
    rz_N = _truncated_normal(u_rz_N, mean_N, prior.rz_scatter * np.sqrt(1 - rho**2), prior.low, prior.high)
    return gr_N, rz_N


def sersic_index(u_N: Array, prior: SourceShapePrior) -> Array:
    """(N,) Sersic indices."""
    if prior.n_scatter_dex == 0:
        return np.full_like(u_N, prior.n_median)
    log_N = _truncated_normal(
        u_N, np.log10(prior.n_median), prior.n_scatter_dex, np.log10(prior.n_low), np.log10(prior.n_high)
    )
    return 10**log_N


def rayleigh(u_N: Array, scale: float, maximum: float) -> Array:
    """(N,) Rayleigh numbers below a maximum; all zero for scale 0."""
    if scale == 0:
        return np.zeros_like(u_N)
    return scale * np.sqrt(-2.0 * np.log1p(u_N * np.expm1(-0.5 * (maximum / scale) ** 2)))


def lens_ellipticity(
    u1_N: Array, u2_N: Array, shape_e1_N: Array, shape_e2_N: Array, prior: LensPrior
) -> tuple[Array, Array]:
    """Ellipticity and orientation of the deflector from its host's light.

    Args:
        u1_N, u2_N: uniform numbers.
        shape_e1_N, shape_e2_N: Tractor's SHAPE_E1 and SHAPE_E2, |e| = (1 - q)/(1 + q), PA = atan2(e2, e1)/2 E of N.

    Returns:
        (N,) |e| and (N,) phi in radians in [0, pi), counter-clockwise from +x of the array: PA + 90 deg, because RA
        grows to the left.
    """
    # A uniform number of exactly 0 has no normal counterpart.
    normal1_N, normal2_N = (ndtri(np.maximum(u, np.finfo(float).tiny)) for u in (u1_N, u2_N))
    e1_N = shape_e1_N + prior.e_scatter * normal1_N
    e2_N = shape_e2_N + prior.e_scatter * normal2_N
    pa_N = 0.5 * np.arctan2(e2_N, e1_N)
    phi_N = np.mod(pa_N + 0.5 * np.pi, np.pi)
    return np.minimum(np.hypot(e1_N, e2_N), prior.max_e), np.where(phi_N >= np.pi, 0.0, phi_N)


def axis_ratio(e_N: ArrayLike) -> Array:
    """q = (1 - e)/(1 + e)."""
    e_N = np.asarray(e_N, dtype=np.float64)
    return (1.0 - e_N) / (1.0 + e_N)


def offset(u_radius_N: Array, u_angle_N: Array, limit_N: Array) -> tuple[Array, Array]:
    """(N,) x and (N,) y in arcsec, uniform in area within `limit_N` arcsec of the lens."""
    radius_N, angle_N = limit_N * np.sqrt(u_radius_N), 2.0 * np.pi * u_angle_N
    return radius_N * np.cos(angle_N), radius_N * np.sin(angle_N)


def arc_snr(u_N: Array, target: ArcSnrRange) -> Array:
    """(N,) log-uniform arc_snr."""
    return target.low * (target.high / target.low) ** u_N


def magnitude_weight(mag_r: ArrayLike, settings: ManifestSettings, reff_arcsec: ArrayLike | None = None) -> Array:
    """Sampling weight of a source whose flux was scaled to its task's `target_arc_snr`: see the module's docstring.

    Args:
        mag_r: (N,) unlensed r magnitude after the scaling.
        settings: of the manifest; `target_arc_snr` must be set.
        reff_arcsec: (N,) the task's half-light radius. None takes sizes as independent of magnitude.

    Returns:
        (N,) prior density / proposal density, zero where the prior has no such galaxy.

    Raises:
        ValueError: the manifest's magnitudes are not reweighted.
    """
    if settings.target_arc_snr is None:
        raise ValueError("magnitude_weight needs target_arc_snr; without it every weight is 1")
    mag_N = np.asarray(mag_r, dtype=np.float64)
    magnitudes, sizes = settings.prior.magnitude, settings.prior.size
    density_N = magnitude_density(mag_N, magnitudes)
    if reff_arcsec is not None:
        reff_N = np.asarray(reff_arcsec, dtype=np.float64)
        grid_M = np.linspace(magnitudes.bright, magnitudes.faint, _QUADRATURE_POINTS)
        joint_NM = magnitude_density(grid_M, magnitudes) * size_density(reff_N[..., None], grid_M, sizes)
        marginal_N = np.trapezoid(joint_NM, grid_M, axis=-1)
        density_N = density_N * size_density(reff_N, mag_N, sizes) / marginal_N
    return density_N * 2.5 * np.log10(settings.target_arc_snr.high / settings.target_arc_snr.low)


def _log_median_size(mag_N: ArrayLike, prior: SizePrior) -> Array:
    return np.log10(prior.median_arcsec) + prior.slope_dex_per_mag * (np.asarray(mag_N, np.float64) - prior.at_mag)


def _truncated_normal(u_N: Array, mean_N: ArrayLike, scatter: float, low: float, high: float) -> Array:
    mean_N = np.asarray(mean_N, dtype=np.float64)
    below_N, above_N = ndtr((low - mean_N) / scatter), ndtr((high - mean_N) / scatter)
    return np.clip(mean_N + scatter * ndtri(below_N + u_N * (above_N - below_N)), low, high)
