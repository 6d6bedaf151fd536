"""Where a stored stamp lies in its brick, to the pixel.

The earlier pipeline cut stamps at a rounded WCS position, and its three renderers did not agree on a stamp's origin
(pixel 31.5, 32, or the rounded target). So the place is not computed but found: the one whole-pixel offset at which
the coadd has the stamp's outermost pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.coadds import BrickCoadds, Cutout

OFF_EDGE = "off the edge of the brick"
NO_PLACE = "no pixel offset gives the stamp's edge"
MANY_PLACES = "several pixel offsets give the stamp's edge"
LIGHT_AT_EDGE = "light of the arc at the stamp's edge"

# The right place leaves the arc's light at most; any other leaves noise. Between them lies more than this factor.
_CLEARLY_BETTER = 0.1


class GridError(Exception):
    """Why a stamp's place is not known; becomes `cutout_reason`."""


@dataclass(frozen=True)
class Place:
    """The coadd under a stamp.

    image, invvar: (B, H, W) nanomaggies and 1/nanomaggy^2 per pixel as the coadds have them.
    psfsize: (B,) arcsec at the stamp's centre.
    maskbits: (H, W).
    x0, y0: column and row of the brick that are the stamp's first.
    """

    image: NDArray[np.float32]
    invvar: NDArray[np.float32]
    psfsize: NDArray[np.float32]
    maskbits: NDArray[np.int32]
    x0: int
    y0: int


def edge_difference(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Largest difference on the outermost pixels of two stamps (B, H, W); infinite where one is not finite."""
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    border = np.concatenate([difference[:, 0], difference[:, -1], difference[:, :, 0], difference[:, :, -1]], axis=1)
    return float(np.where(np.isfinite(border), border, np.inf).max())


def find_place(
    stamp: NDArray[np.float32], coadds: BrickCoadds, x: float, y: float, search: int, tolerance: float
) -> Place:
    """The place of a stamp of the target at brick coordinates x, y (zero-based pixels).

    An arc whose light reaches the outermost pixels by more than `tolerance` hides the place: such a stamp is refused,
    because its control could be one pixel off and nobody would know.

    Args:
        stamp: (B, H, W) nanomaggies per pixel, with or without an arc.
        search: offsets up to this many pixels from the nominal place are tried.
        tolerance: largest edge difference accepted, nanomaggies; 0 asks for the same bits.

    Raises:
        GridError: no place, several, or none within the tolerance.
        CorruptDataError: a tile does not decompress.
    """
    size = stamp.shape[-1]
    around, margin = _around(coadds, x, y, size, search)
    steps = range(2 * margin + 1)
    found = {
        (row, column): edge_difference(stamp, around.image[:, row : row + size, column : column + size])
        for row in steps
        for column in steps
    }
    # Of equal differences the one nearest to the nominal place; there is no such tie where the sky has noise.
    ordered = sorted(found, key=lambda at: (found[at], abs(at[0] - margin) + abs(at[1] - margin), at))
    best = found[ordered[0]]
    others = [found[at] for at in ordered[1:]]
    if best > tolerance:
        raise GridError(LIGHT_AT_EDGE if others and best < _CLEARLY_BETTER * others[0] else NO_PLACE)
    if others and others[0] <= tolerance:
        raise GridError(MANY_PLACES)
    row, column = ordered[0]
    rows, columns = slice(row, row + size), slice(column, column + size)
    return Place(
        image=around.image[:, rows, columns],
        invvar=around.invvar[:, rows, columns],
        psfsize=around.psfsize,
        maskbits=around.maskbits[rows, columns],
        x0=around.x0 + column,
        y0=around.y0 + row,
    )


def _around(coadds: BrickCoadds, x: float, y: float, size: int, search: int) -> tuple[Cutout, int]:
    """The nominal cutout with as wide a margin as the brick has, up to `search` pixels."""
    for margin in range(search, -1, -1):
        try:
            return coadds.cutout(x, y, size + 2 * margin), margin
        except BadInputError:
            continue
    raise GridError(OFF_EDGE)
