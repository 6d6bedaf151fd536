"""Conversions between the units of the Legacy Surveys' columns and magnitudes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ZERO_POINT = 22.5
"""AB magnitude of one nanomaggy."""
FWHM_PER_SIGMA = 2.354820045
"""FWHM of a Gaussian of unit dispersion, 2 sqrt(2 ln 2)."""


def magnitude(flux: ArrayLike) -> NDArray[np.float64]:
    """AB magnitude of a flux in nanomaggies; NaN where the flux is not positive."""
    return _where_positive(flux, lambda f: ZERO_POINT - 2.5 * np.log10(f))


def nanomaggies(mag: ArrayLike) -> NDArray[np.float64]:
    """Flux in nanomaggies of an AB magnitude."""
    return np.asarray(10.0 ** ((ZERO_POINT - np.asarray(mag, np.float64)) / 2.5))


def depth_magnitude(inverse_variance: ArrayLike) -> NDArray[np.float64]:
    """5-sigma AB magnitude of a sweep's PSFDEPTH or GALDEPTH, 1/nanomaggy^2; NaN where there is no coverage.

    survey-bricks holds magnitudes already: do not convert those.
    """
    return _where_positive(inverse_variance, lambda iv: ZERO_POINT - 2.5 * np.log10(5.0 / np.sqrt(iv)))


def depth_inverse_variance(mag: ArrayLike) -> NDArray[np.float64]:
    """PSFDEPTH in 1/nanomaggy^2 of a 5-sigma AB magnitude: the inverse of `depth_magnitude`."""
    return (5.0 / nanomaggies(mag)) ** 2


def noise_equivalent_area(psfsize: ArrayLike, pixel_scale: float) -> NDArray[np.float64]:
    """Noise-equivalent area in pixels of a PSF whose legacypipe `psfsize` is given in arcsec.

    psfsize = 2.3548 / (2 sqrt(pi)) sqrt(NEA) (legacypipe coadds.py).
    """
    fwhm_pixels = np.asarray(psfsize, np.float64) / pixel_scale
    return (fwhm_pixels / FWHM_PER_SIGMA * 2.0 * np.sqrt(np.pi)) ** 2


def _where_positive(values: ArrayLike, formula: Any) -> NDArray[np.float64]:
    x = np.asarray(values, np.float64)
    good = x > 0
    return np.where(good, formula(np.where(good, x, 1.0)), np.nan)
