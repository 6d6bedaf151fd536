"""Observing conditions of one brick: PSF, depth, sky, exposures and what is masked."""

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.survey.names import BANDS, PIXEL_SCALE
from dark_halo_scope.survey.units import depth_inverse_variance, nanomaggies, noise_equivalent_area

MOFFAT_BETA = 3.5
FWHM_PER_PSFSIZE = 0.811
"""FWHM of a Moffat(3.5) over the psfsize of equal noise-equivalent area."""

_PSFSIZE_RATIO = {"g": 1.10, "r": 1.0, "z": 0.92}
_DEPTH_OFFSET = {"g": 0.5, "r": 0.0, "z": -0.95}
_SKY = {"g": 22.0, "r": 20.9, "z": 19.0}
"""Dark sky over Cerro Tololo, AB magnitude per square arcsec."""
_GAP = 45
"""Pixels between DECam's CCDs, after resampling."""
_CCD = (2046, 4094)


class MaskBit(IntFlag):
    """Bits of MASKBITS that the embedded survey sets (DR10 numbering)."""

    BRIGHT = 1 << 1
    SATUR_G = 1 << 2
    SATUR_R = 1 << 3
    SATUR_Z = 1 << 4
    ALLMASK_G = 1 << 5
    ALLMASK_R = 1 << 6
    ALLMASK_Z = 1 << 7
    WISEM1 = 1 << 8
    WISEM2 = 1 << 9
    MEDIUM = 1 << 11


SATURATED = (MaskBit.SATUR_G, MaskBit.SATUR_R, MaskBit.SATUR_Z)
ALLMASK = (MaskBit.ALLMASK_G, MaskBit.ALLMASK_R, MaskBit.ALLMASK_Z)


@dataclass(frozen=True)
class Conditions:
    """Arrays have the bands g, r, z first."""

    psfsize: NDArray[np.float64]
    """(3,) arcsec, noise-equivalent-area FWHM."""
    psfdepth: NDArray[np.float64]
    """(3,) 5-sigma AB magnitude of a point source under all exposures."""
    sky: NDArray[np.float64]
    """(3,) nanomaggies per pixel."""
    ebv: float
    nexp: NDArray[np.int16]
    """(3, H, W) exposures that saw each pixel, flagged or not."""
    sky_invvar: NDArray[np.float64]
    """(3, H, W) 1/nanomaggy^2 of the sky alone; 0 where every exposure is flagged or none exists."""

    @property
    def psf_fwhm(self) -> NDArray[np.float64]:
        """(3,) arcsec, FWHM of the Moffat profile that has this psfsize; it includes the pixel."""
        return FWHM_PER_PSFSIZE * self.psfsize

    def variance(self, light: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance per pixel, (3, H, W) nanomaggy^2, of sky and of `light` nanomaggies per pixel; infinite if masked.

        The sky's electrons are gain x sky, and its variance 1/sky_invvar = sky / gain, so gain = sky x sky_invvar and
        the light adds light / gain.
        """
        with np.errstate(divide="ignore"):
            return (1.0 + np.maximum(light, 0.0) / self.sky[:, None, None]) / self.sky_invvar


def draw_conditions(rng: np.random.Generator, pixels: int) -> Conditions:
    """Conditions as DR10's bricks have them: psfsize_r 1.0-1.5 arcsec, psfdepth_r 23.6-24.8."""
    psfsize_r = np.clip(rng.normal(1.24, 0.11), 1.0, 1.5)
    psfsize = np.array([psfsize_r * _PSFSIZE_RATIO[b] * rng.lognormal(0.0, 0.04 * (b != "r")) for b in BANDS])
    depth_r = np.clip(rng.normal(24.15, 0.28), 23.65, 24.8)
    depth = np.array([depth_r + _DEPTH_OFFSET[b] + rng.normal(0.0, 0.12) * (b != "r") for b in BANDS])
    sky = nanomaggies([_SKY[b] + rng.normal(0.0, 0.15) for b in BANDS]) * PIXEL_SCALE**2
    invvar = depth_inverse_variance(depth) * noise_equivalent_area(psfsize, PIXEL_SCALE)
    nexp = np.zeros((len(BANDS), pixels, pixels), dtype=np.int16)
    good = np.zeros_like(nexp)
    exposures = rng.integers(3, 7, size=len(BANDS))
    for band, count in enumerate(exposures):
        for _ in range(count):
            seen = _coverage(rng, pixels)
            nexp[band] += seen
            good[band] += seen & ~_cosmic_rays(rng, pixels)
        if rng.random() < 0.06:
            _cut_edge(rng, nexp[band], good[band])
    return Conditions(
        psfsize=psfsize,
        psfdepth=depth,
        sky=sky,
        ebv=float(rng.uniform(0.01, 0.11)),
        nexp=nexp,
        sky_invvar=good / exposures[:, None, None] * invvar[:, None, None],
    )


def _coverage(rng: np.random.Generator, pixels: int) -> NDArray[np.bool_]:
    """Pixels that one exposure saw: all but the gaps between CCDs, dithered."""
    seen = np.ones((pixels, pixels), dtype=np.bool_)
    for axis, pitch in enumerate(_CCD):
        first = int(rng.integers(-_GAP, pitch))
        for start in range(first, pixels, pitch + _GAP):
            window = slice(max(start, 0), max(start + _GAP, 0))
            seen[(window, slice(None)) if axis else (slice(None), window)] = False
    return seen


def _cosmic_rays(rng: np.random.Generator, pixels: int) -> NDArray[np.bool_]:
    """Pixels that one exposure flags: short straight tracks and a few bad spots."""
    hit = np.zeros((pixels, pixels), dtype=np.bool_)
    tracks = rng.poisson(90 * (pixels / 1200) ** 2)
    length = rng.integers(2, 28, size=tracks)
    angle = rng.uniform(0, np.pi, size=tracks)
    start = rng.uniform(0, pixels, size=(tracks, 2))
    along = np.arange(28)[None, :]
    x = (start[:, :1] + along * np.cos(angle)[:, None]).astype(np.int64)
    y = (start[:, 1:] + along * np.sin(angle)[:, None]).astype(np.int64)
    valid = (along < length[:, None]) & (x >= 0) & (x < pixels - 1) & (y >= 0) & (y < pixels)
    hit[y[valid], x[valid]] = True
    hit[y[valid], x[valid] + 1] = True
    return hit


def _cut_edge(rng: np.random.Generator, nexp: NDArray[np.int16], good: NDArray[np.int16]) -> None:
    """Leave a strip along one side without any exposure, as at the border of the footprint."""
    width = int(rng.uniform(0.02, 0.08) * nexp.shape[0])
    side = int(rng.integers(4))
    for exposures in (nexp, good):
        np.rot90(exposures, side)[:width] = 0
