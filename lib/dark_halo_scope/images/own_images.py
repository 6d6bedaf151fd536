"""A user's own cutouts: FITS cubes as the viewer gives them, and NPZ files of the earlier pipeline.

An NPZ holds `cutout`, (H, W, 3) in g, r, z, or `image_g`, `image_r`, `image_z`, each (H, W); pixels are nanomaggies of
0.262 arcsec, which nothing in it says. Members that are neither, such as pickled `meta_*`, are never opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.npz import NpzError, npz_names
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.injection.cutout_npz import CUTOUT, decode_cutout
from dark_halo_scope.survey.cutout_service import read_cutout

SUFFIXES = (".fits", ".npz")
NO_SCALE = "the file does not say its pixel scale"
# The viewer gives at most 3000 x 3000 pixels in four bands; more is no cutout.
MAX_FILE_BYTES = 200_000_000


@dataclass(frozen=True)
class OwnImage:
    """image_3HW: nanomaggies per pixel, bands g, r, z. flags: what the file does not say."""

    image_3HW: NDArray[np.float32]
    flags: tuple[str, ...]


def list_images(paths: Sequence[Path]) -> list[Path]:
    """The files given, and those of each folder by name; a folder's own folders are not looked into.

    Raises:
        BadInputError: something does not exist, is no image file by its suffix, or a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise BadInputError(f"{path} holds no {' or '.join(SUFFIXES)} files; give a folder of cutouts.")
            found += inside
        elif not path.is_file():
            raise BadInputError(f"{path} does not exist; give FITS or NPZ files, or folders of them.")
        elif path.suffix.lower() not in SUFFIXES:
            raise BadInputError(f"{path} is none of {', '.join(SUFFIXES)}; give cutouts in one of these formats.")
        else:
            found.append(path)
    return found


def position(path: Path) -> tuple[float, float] | None:
    """Right ascension and declination (degrees) of the middle of an image; None where the file does not say them."""
    if path.suffix.lower() != ".fits":
        return None
    try:
        header = fits.getheader(path)
        wcs = WCS(header, naxis=2)
        if not wcs.has_celestial:
            return None
        middle = ((header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2)
        ra, dec = (float(value) for value in wcs.all_pix2world(*middle, 0))
    except Exception:  # whatever astropy raises on bytes that are none: reading the pixels will say it
        return None
    return (ra % 360.0, dec) if np.isfinite(ra) and np.isfinite(dec) else None


def read_own_image(path: Path) -> OwnImage:
    """Read one image and check it.

    Raises:
        BadInputError: too large, not such a file, pickled pixels, or a band is missing.
        CorruptDataError: a FITS file that is damaged, of another pixel scale, or not finite.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BadInputError(f"{path} has {size} bytes, more than any cutout; give cutouts.")
    data = path.read_bytes()
    if path.suffix.lower() == ".fits":
        return OwnImage(read_cutout(data, str(path)).image_3HW, ())
    try:
        image_3HW = decode_cutout(data) if CUTOUT in npz_names(data) else decode_stamp(data)
    except NpzError as error:
        raise NpzError(f"{path}: {error}") from error
    return OwnImage(image_3HW, (NO_SCALE,))
