"""Checks of one coadd file before any of its pixels is used."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.files import sha256_file
from dark_halo_scope.survey.config import CoaddSettings
from dark_halo_scope.survey.fitsfile import open_fits
from dark_halo_scope.survey.grid import brick_at
from dark_halo_scope.survey.names import PIXEL_SCALE

_SCALE_TOLERANCE = 1e-4
"""Arcsec per pixel; the viewer's resampled cutouts differ by far more."""


class CoaddCheck(NamedTuple):
    """What a good file holds."""

    bytes: int
    sha256: str
    finite_fraction: float
    zero_fraction: float
    """Pixels that are 0: of invvar those without data, of psfsize those without an exposure."""


def check_coadd(path: Path, brickname: str, product: str, settings: CoaddSettings) -> CoaddCheck:
    """Decompress a whole coadd file, and see that it is the one that its name says.

    Raises:
        CorruptDataError: truncated, undecodable, of another brick, shape, pixel scale or projection, or not finite.
    """
    with open_fits(path) as file:
        if len(file) < 2:
            raise CorruptDataError(f"{path} has no image extension; fetch it again.")
        hdu = file[1]
        header = hdu.read_header()
        pixels = hdu.read()
        if "DATASUM" in header and hdu.has_data():
            # Raises ValueError, which open_fits turns into a CorruptDataError.
            hdu.verify_checksum()
    if not isinstance(pixels, np.ndarray) or pixels.shape != (settings.pixels, settings.pixels):
        shape = getattr(pixels, "shape", None)
        raise CorruptDataError(
            f"{path} has shape {shape}, not {settings.pixels} x {settings.pixels}; it is another kind of image."
        )
    stored = str(header.get("BRICKNAM", brickname)).strip()
    if stored != brickname:
        raise CorruptDataError(f"{path} is of brick {stored}, not {brickname}; fetch it again.")
    if "CRVAL1" in header:
        _check_wcs(path, brickname, header)
    elif product.startswith("image"):
        raise CorruptDataError(f"{path} has no WCS; fetch it again.")
    finite = float(np.mean(np.isfinite(pixels)))
    # A psfsize that is NaN is counted with the zeros and judged per stamp: most of its brick is good.
    if not product.startswith("psfsize") and finite < settings.min_finite_fraction:
        raise CorruptDataError(
            f"{path} is finite in {finite:.2%} of its pixels where {settings.min_finite_fraction:.2%} is needed; "
            "leave the brick out."
        )
    if product.startswith("invvar") and np.any(pixels < 0):
        raise CorruptDataError(f"{path} holds negative inverse variances; fetch it again.")
    return CoaddCheck(path.stat().st_size, sha256_file(path), finite, float(np.mean(pixels == 0)))


def _check_wcs(path: Path, brickname: str, header: dict) -> None:
    projection = str(header.get("CTYPE1", "")).strip()
    scale = 3600 * np.hypot(float(header.get("CD1_1", 0.0)), float(header.get("CD2_1", 0.0)))
    if projection != "RA---TAN" or abs(scale - PIXEL_SCALE) > _SCALE_TOLERANCE:
        raise CorruptDataError(
            f"{path} has projection {projection!r} at {scale:.4f} arcsec per pixel, not a tangent plane at "
            f"{PIXEL_SCALE}; it is no coadd of a brick."
        )
    centre = str(brick_at(header["CRVAL1"], header["CRVAL2"]).name)
    if centre != brickname:
        raise CorruptDataError(f"{path} is centred on brick {centre}, not {brickname}; fetch it again.")
