"""Circular PSFs: profiles, transfer functions and widths from the survey's psfsize.

The survey's PSFs are effective ones: they hold the pixel's response, so an image is the profile's value at pixel
centres times the pixel's area, and is never integrated over pixels again.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import array_api_compat
import numpy as np
import numpy.typing as npt
from scipy.special import gamma, kv

from dark_halo_scope.lensing.arrays import Array

Kind = Literal["moffat", "gaussian"]
Match = Literal["nea", "fwhm"]

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
# Tabulated transfer functions: entries, and the value at which a table ends.
_TABLE_LENGTH = 16384
_TABLE_END = 1e-6


@dataclass(frozen=True)
class Psf:
    """A circular PSF of unit flux.

    Attributes:
        kind: Moffat, I ~ (1 + (r/scale)^2)^-beta, or Gaussian.
        fwhm: full width at half maximum, arcsec.
        beta: Moffat's exponent, > 1; a Gaussian ignores it.

    Raises:
        ValueError: the width is not positive, or beta <= 1 (infinite flux).
    """

    kind: Kind
    fwhm: float
    beta: float = 3.5

    def __post_init__(self) -> None:
        if self.kind not in ("moffat", "gaussian"):
            raise ValueError(f"A PSF is a moffat or a gaussian, not {self.kind!r}.")
        if not (math.isfinite(self.fwhm) and self.fwhm > 0):
            raise ValueError(f"A PSF's FWHM is positive; {self.fwhm} is not.")
        if self.kind == "moffat" and not (math.isfinite(self.beta) and self.beta > 1):
            raise ValueError(f"A Moffat PSF's beta exceeds 1; {self.beta} does not.")

    @property
    def scale(self) -> float:
        """Moffat's alpha = fwhm / (2 sqrt(2^(1/beta) - 1)), or the Gaussian's sigma; arcsec."""
        if self.kind == "gaussian":
            return self.fwhm / FWHM_PER_SIGMA
        return self.fwhm / (2.0 * math.sqrt(2.0 ** (1.0 / self.beta) - 1.0))


def psf_from_psfsize(psfsize: float, kind: Kind = "moffat", match: Match = "nea", beta: float = 3.5) -> Psf:
    """The PSF that psfsize (arcsec) stands for.

    psfsize is 2.3548 / (2 sqrt(pi)) sqrt(NEA), the FWHM of the Gaussian of the PSF's noise-equivalent area
    (legacypipe, coadds.py). `nea` gives the profile that area: FWHM = 0.811 psfsize for Moffat(3.5). `fwhm` takes
    psfsize for the profile's own FWHM.

    Raises:
        ValueError: psfsize is not positive.
    """
    if not (math.isfinite(psfsize) and psfsize > 0):
        raise ValueError(f"psfsize is positive where there is an image; {psfsize} is not.")
    if match == "fwhm":
        return Psf(kind, psfsize, beta)
    return Psf(kind, psfsize / noise_equivalent_fwhm(Psf(kind, 1.0, beta)), beta)


def noise_equivalent_area(psf: Psf) -> float:
    """1 / integral of the squared profile, arcsec^2 (King 1983, PASP 95, 163)."""
    if psf.kind == "gaussian":
        return 4.0 * math.pi * psf.scale**2
    return math.pi * psf.scale**2 * (2.0 * psf.beta - 1.0) / (psf.beta - 1.0) ** 2


def noise_equivalent_fwhm(psf: Psf) -> float:
    """The psfsize that the survey would quote for this PSF, arcsec."""
    return FWHM_PER_SIGMA / (2.0 * math.sqrt(math.pi)) * math.sqrt(noise_equivalent_area(psf))


def profile(psf: Psf, radius: Array) -> Array:
    """Flux density, 1/arcsec^2, at `radius` (arcsec, any shape)."""
    xp = array_api_compat.array_namespace(radius)
    if psf.kind == "gaussian":
        return xp.exp(-((radius / psf.scale) ** 2) / 2.0) / (2.0 * math.pi * psf.scale**2)
    peak = (psf.beta - 1.0) / (math.pi * psf.scale**2)
    return peak * (1.0 + (radius / psf.scale) ** 2) ** -psf.beta


def enclosed_flux(psf: Psf, radius: Array) -> Array:
    """Fraction of the flux inside `radius` (arcsec, any shape)."""
    xp = array_api_compat.array_namespace(radius)
    if psf.kind == "gaussian":
        return 1.0 - xp.exp(-((radius / psf.scale) ** 2) / 2.0)
    return 1.0 - (1.0 + (radius / psf.scale) ** 2) ** (1.0 - psf.beta)


def kernel(psf: Psf, size: int, pixel_scale: float) -> npt.NDArray[np.float64]:
    """(size, size) image of a point source at the centre: value at pixel centres times the pixel's area.

    Its sum is below 1 by the flux outside; renormalising would brighten every arc.
    """
    offset = (np.arange(size) - (size - 1) / 2.0) * pixel_scale
    return profile(psf, np.hypot(offset[:, None], offset[None, :])) * pixel_scale**2


def transfer(psf: Psf, wavenumber: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fourier transform of the profile at `wavenumber` (rad/arcsec, >= 0), 1 at 0.

    Gaussian: exp(-x^2/2); Moffat: 2 (x/2)^(beta-1) K_{beta-1}(x) / Gamma(beta-1) (Trujillo et al. 2001, MNRAS 328,
    977, eq. 7), with x = wavenumber * scale.
    """
    x = np.asarray(wavenumber, dtype=np.float64) * psf.scale
    if psf.kind == "gaussian":
        return np.exp(-(x**2) / 2.0)
    order = psf.beta - 1.0
    safe = np.maximum(x, 1e-8)
    return np.where(x < 1e-8, 1.0, 2.0 * (safe / 2.0) ** order * kv(order, safe) / gamma(order))


@lru_cache(maxsize=16)
def transfer_table(kind: Kind, beta: float) -> tuple[npt.NDArray[np.float64], float]:
    """`transfer` of a PSF of scale 1 on a regular grid from 0 to where it falls below 1e-6, and the grid's step.

    Read linearly it is right to 1e-6.
    """
    unit = Psf(kind, 1.0, beta)
    search = np.linspace(0.0, 60.0, 601)
    end = search[np.argmax(transfer(unit, search / unit.scale) < _TABLE_END)]
    grid = np.linspace(0.0, end, _TABLE_LENGTH)
    table = transfer(unit, grid / unit.scale)
    table.flags.writeable = False
    return table, float(grid[1])
