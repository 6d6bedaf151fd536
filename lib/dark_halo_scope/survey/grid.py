"""The tiling of the sky into bricks of 0.25 deg that every Legacy Surveys release shares.

Rows of constant declination; each is cut into an even number of equal steps of right ascension, never wider than
0.25 deg on the sky. Source: desiutil.brick; checked against brick ids of DR5, DR9 and DR10 files.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.core.errors import BadInputError

SIZE = 0.25
"""Height of a brick, degrees."""
_ROWS = int(180 / SIZE) + 1


class BrickBox(NamedTuple):
    """Bricks and the boxes in which their objects are primary: arrays of one shape, degrees."""

    name: NDArray[np.str_]
    brickid: NDArray[np.int32]
    brickrow: NDArray[np.int32]
    brickcol: NDArray[np.int32]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    ra1: NDArray[np.float64]
    ra2: NDArray[np.float64]
    dec1: NDArray[np.float64]
    dec2: NDArray[np.float64]

    def take(self, index: int | NDArray[np.integer]) -> "BrickBox":
        """Some of the bricks, or one of them as scalars."""
        return BrickBox._make(values[index] for values in self)


@cache
def _columns_per_row() -> NDArray[np.int64]:
    dec = np.arange(_ROWS) * SIZE - 90.0
    columns = 2 * np.ceil(360.0 / SIZE * np.cos(np.radians(np.abs(dec) - SIZE / 2)) / 2).astype(np.int64)
    columns[[0, -1]] = 1
    columns.setflags(write=False)
    return columns


@cache
def _first_of_row() -> NDArray[np.int64]:
    """Bricks before each row, and their total at the end."""
    return np.concatenate([[0], np.cumsum(_columns_per_row())])


def brickid_at(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.int32]:
    """Id of the brick that owns each position (BRICK_PRIMARY).

    Args:
        ra, dec: degrees, of one shape; RA of any turn.
    """
    ra_deg, dec_deg = np.broadcast_arrays(np.mod(np.asarray(ra, np.float64), 360.0), np.asarray(dec, np.float64))
    row = np.clip(np.floor((dec_deg + 90.0 + SIZE / 2) / SIZE), 0, _ROWS - 1).astype(np.int64)
    per_row = _columns_per_row()[row]
    column = np.minimum(np.floor(ra_deg * per_row / 360.0).astype(np.int64), per_row - 1)
    return (_first_of_row()[row] + column + 1).astype(np.int32)


def bricks_of_ids(brickid: ArrayLike) -> BrickBox:
    """Name, row, column, centre and box of each brick id, in the shape of `brickid`.

    Raises:
        BadInputError: an id outside 1...662174.
    """
    ids = np.asarray(brickid, np.int64)
    first = _first_of_row()
    if np.any((ids < 1) | (ids > first[-1])):
        raise BadInputError(f"There are no brick ids outside 1...{first[-1]}; fix the table.")
    row = np.searchsorted(first, ids, side="left") - 1
    column = ids - first[row] - 1
    width = 360.0 / _columns_per_row()[row]
    ra = np.asarray((column + 0.5) * width, np.float64)
    dec = np.asarray(row * SIZE - 90.0, np.float64)
    return BrickBox(
        name=_names(ra, dec),
        brickid=ids.astype(np.int32),
        brickrow=row.astype(np.int32),
        brickcol=column.astype(np.int32),
        ra=ra,
        dec=dec,
        ra1=column * width,
        ra2=(column + 1) * width,
        dec1=np.maximum(dec - SIZE / 2, -90.0),
        dec2=np.minimum(dec + SIZE / 2, 90.0),
    )


def brick_at(ra: ArrayLike, dec: ArrayLike) -> BrickBox:
    """The brick that owns each position; for many positions `brickid_at` is much faster."""
    return bricks_of_ids(brickid_at(ra, dec))


def _names(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.str_]:
    """Tenths of a degree of the centre, cut off; rounded first where floating point falls just short."""
    tenths_ra = np.floor(np.round(ra * 10, 6)).astype(np.int64)
    tenths_dec = np.floor(np.round(np.abs(dec) * 10, 6)).astype(np.int64)
    pairs = zip(tenths_ra.ravel(), tenths_dec.ravel(), dec.ravel(), strict=True)
    names = [f"{r:04d}{'m' if sign < 0 else 'p'}{d:03d}" for r, d, sign in pairs]
    return np.array(names, dtype="U8").reshape(ra.shape)
