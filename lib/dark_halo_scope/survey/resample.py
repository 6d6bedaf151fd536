"""Images resampled from bricks onto a tangent plane about a target, as the Legacy Surveys' viewer does it.

Each pixel of the target plane takes the value of its sky position in the brick that owns it (BRICK_PRIMARY),
interpolated by a Lanczos-3 kernel whose 36 weights are scaled to sum to 1. That is a value per pixel: flux is conserved
only where both have pixels of one size. Interpolation smooths noise, by an amount that depends on the sub-pixel shift,
so that resampled and native images differ in texture. Inverse variances and mask bits are those of the nearest pixel: a
masked pixel must stay one.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.survey.coadds import Cutout
from dark_halo_scope.survey.grid import brickid_at, bricks_of_ids
from dark_halo_scope.survey.names import BANDS

LANCZOS = 3


class Brick(Protocol):
    """What is needed of a brick's coadds; see `coadds.BrickCoadds`."""

    shape: tuple[int, int]

    def sky_to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    def cutout(self, x: float, y: float, size: int) -> Cutout: ...


class Mosaic(NamedTuple):
    """A target plane; 0 where no brick has data."""

    image_3HW: NDArray[np.float32]
    """Nanomaggies per pixel of a brick."""
    invvar_3HW: NDArray[np.float32]
    """1/nanomaggy^2."""
    maskbits_HW: NDArray[np.int32]


def target_header(ra: float, dec: float, size: int, pixel_scale: float) -> fits.Header:
    """The WCS cards of a plane with the target (degrees) at its centre, north up, east left, in the viewer's order."""
    step = pixel_scale / 3600.0
    return fits.Header(
        [
            ("CTYPE1", "RA---TAN", "TANgent plane"),
            ("CTYPE2", "DEC--TAN", "TANgent plane"),
            ("CRVAL1", ra, "Reference RA"),
            ("CRVAL2", dec, "Reference Dec"),
            ("CRPIX1", (size + 1) / 2, "Reference x"),
            ("CRPIX2", (size + 1) / 2, "Reference y"),
            ("CD1_1", -step, "CD matrix"),
            ("CD1_2", 0.0, "CD matrix"),
            ("CD2_1", 0.0, "CD matrix"),
            ("CD2_2", step, "CD matrix"),
            ("IMAGEW", size, "Image width"),
            ("IMAGEH", size, "Image height"),
        ]
    )


def mosaic(
    ra: float, dec: float, size: int, pixel_scale: float, open_brick: Callable[[str], Brick | None]
) -> Mosaic | None:
    """The plane of `target_header`, filled from the bricks that own its pixels.

    Args:
        ra, dec: degrees.
        size: H = W, pixels.
        pixel_scale: arcsec.
        open_brick: the coadds of a brick by its name; None where the survey has none.

    Returns:
        None where no pixel lies in an image of the survey.
    """
    wcs = WCS(target_header(ra, dec, size, pixel_scale))
    rows, columns = np.mgrid[:size, :size]
    sky_ra, sky_dec = wcs.all_pix2world(columns.ravel(), rows.ravel(), 0)
    owner = brickid_at(sky_ra, sky_dec)
    image = np.zeros((len(BANDS), size * size), np.float32)
    invvar = np.zeros_like(image)
    maskbits = np.zeros(size * size, np.int32)
    any_inside = False
    for brickid in np.unique(owner):
        brick = open_brick(str(bricks_of_ids(brickid).name))
        if brick is None:
            continue
        own = np.flatnonzero(owner == brickid)
        x, y = brick.sky_to_pixel(sky_ra[own], sky_dec[own])
        height, width = brick.shape
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        if not inside.any():
            continue
        any_inside = True
        own, x, y = own[inside], x[inside], y[inside]
        part, x0, y0 = _part(brick, x, y)
        image[:, own] = lanczos(part.image, x - x0, y - y0)
        column, row = (np.floor(c + 0.5).astype(np.int64) for c in (x - x0, y - y0))
        invvar[:, own] = part.invvar[:, row, column]
        maskbits[own] = part.maskbits[row, column]
    if not any_inside:
        return None
    return Mosaic(
        image.reshape(-1, size, size), invvar.reshape(-1, size, size).clip(min=0), maskbits.reshape(size, size)
    )


def _part(brick: Brick, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Cutout, int, int]:
    """The smallest square of a brick that has all taps of positions x, y as far as the brick has them; its origin."""
    height, width = brick.shape
    first, last = ([int(np.floor(f(c))) for c in (x, y)] for f in (np.min, np.max))
    side = max(last[0] - first[0], last[1] - first[1]) + 2 * LANCZOS
    # A brick's images are square; clipped to it, the square still covers what the brick has of the taps.
    side = min(side, width, height)
    x0, y0 = (
        min(max(start - LANCZOS + 1, 0), length - side) for start, length in zip(first, (width, height), strict=True)
    )
    middle = (side - 1) / 2
    return brick.cutout(x0 + middle, y0 + middle, side), x0, y0


def lanczos(image: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Lanczos-3 interpolation with weights that sum to 1.

    Args:
        image: (B, H, W); taps outside of it and taps that are not finite count nothing.
        x, y: (N,) columns and rows; whole numbers are pixel centres.

    Returns:
        (B, N); 0 where no tap is left.
    """
    bands, height, width = image.shape
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    total = np.zeros((bands, len(x)))
    weight = np.zeros((bands, len(x)))
    offsets = range(1 - LANCZOS, LANCZOS + 1)
    kernel_x, kernel_y = ({k: _kernel(c - start - k) for k in offsets} for c, start in ((x, column), (y, row)))
    for j in offsets:
        for i in offsets:
            u, v = column + i, row + j
            inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            value = image[:, np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)]
            w = np.where(inside & np.isfinite(value), kernel_x[i] * kernel_y[j], 0.0)
            total += w * np.where(np.isfinite(value), value, 0.0)
            weight += w
    good = np.abs(weight) > 1e-6
    return np.where(good, total / np.where(good, weight, 1.0), 0.0).astype(np.float32)


def _kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(distance) < LANCZOS, np.sinc(distance) * np.sinc(distance / LANCZOS), 0.0)
