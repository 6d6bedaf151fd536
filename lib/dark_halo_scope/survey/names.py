"""Names of the DR10 data model: brick names, files of a brick, and the two layouts of a coadd tree.

Source: https://www.legacysurvey.org/dr10/files/, and the flat cache of the earlier pipeline.
"""

import re
from typing import Literal

from dark_halo_scope.core.errors import BadInputError

CoaddLayout = Literal["release", "cache"]

BANDS = ("g", "r", "z")
PIXEL_SCALE = 0.262
"""Arcsec per pixel of every coadd."""

_BRICK = re.compile(r"(?:[0-2]\d|3[0-5])\d{2}[mp][0-8]\d{2}|(?:[0-2]\d|3[0-5])\d{2}[mp]900")
_PER_BAND = ("image", "invvar", "psfsize")


def checked_brickname(name: str) -> str:
    """Return `name` if it is one of a brick, such as 1102p240; it becomes part of a path, so nothing else may pass.

    Raises:
        BadInputError: it is not.
    """
    if not _BRICK.fullmatch(name):
        raise BadInputError(
            f"{name!r} is not a brick name (four digits, p or m, three digits, as 1102p240); fix the row."
        )
    return name


def products(bands: tuple[str, ...] = BANDS) -> tuple[str, ...]:
    """Products read from each brick: `image-g`, ..., `psfsize-z`, `maskbits`."""
    return (*(f"{kind}-{band}" for kind in _PER_BAND for band in bands), "maskbits")


def coadd_file(brickname: str, product: str, layout: CoaddLayout) -> str:
    """Path of one product below the root of a coadd tree.

    `release` is DR10's own `<AAA>/<brick>/`, below `south/coadd`; `cache` is a flat `<brick>/`.
    """
    name = checked_brickname(brickname)
    file = f"{name}/legacysurvey-{name}-{product}.fits.fz"
    return f"{name[:3]}/{file}" if layout == "release" else file
