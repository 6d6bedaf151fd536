"""Which split a position belongs to: one HEALPix cell, one split, by a seeded hash.

Every object (host, negative, positive) follows its cell, so that no patch of sky is in two splits.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.catalogue.crossmatch import close_pairs
from dark_halo_scope.core.errors import BadInputError, CorruptDataError

NSIDE = 128
"""HEALPix resolution of a cell: 27.5 arcmin across."""

N_CELLS = 12 * NSIDE**2

SPLITS = ("train", "val", "test")

SPLIT_SEED = 42

TRAIN_BELOW = 0.70
VAL_BELOW = 0.85

_ARCSEC = np.pi / (180.0 * 3600.0)


def healpix_cell(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.int64]:
    """Nested HEALPix cell (nside 128) of each position.

    Args:
        ra, dec: (N,) degrees, ICRS; RA in [0, 360).

    Returns:
        (N,) int64.

    Raises:
        BadInputError: a coordinate is not finite or out of range.
    """
    ra_N = np.atleast_1d(np.asarray(ra, dtype=np.float64))
    dec_N = np.atleast_1d(np.asarray(dec, dtype=np.float64))
    good_N = (ra_N >= 0.0) & (ra_N < 360.0) & (np.abs(dec_N) <= 90.0)
    if not good_N.all():
        i = int(np.argmin(good_N))
        raise BadInputError(
            f"{int((~good_N).sum())} of {ra_N.size} positions have no HEALPix cell, the first is "
            f"RA {ra_N[i]}, Dec {dec_N[i]}; quarantine them before asking for their split."
        )
    # Here and not above: healpy brings matplotlib and astropy, three seconds for every process and Spark worker that
    # needs no more of this module than a hash.
    import healpy

    return healpy.ang2pix(NSIDE, ra_N, dec_N, nest=True, lonlat=True).astype(np.int64)


def hash_fraction(text: str) -> float:
    """First 4 bytes (big-endian) of sha256(text), divided by 2^32: uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def split_of_key(key: object, seed: int = SPLIT_SEED) -> str:
    """Split of any hashable name: train below 0.70 of sha256("{key}_{seed}"), val below 0.85, else test."""
    u = hash_fraction(f"{key}_{seed}")
    return "train" if u < TRAIN_BELOW else "val" if u < VAL_BELOW else "test"


def split_of_cells(cells: ArrayLike, seed: int = SPLIT_SEED) -> NDArray[np.str_]:
    """Split of each HEALPix cell.

    Args:
        cells: (N,) integers, nested nside-128 cells.
        seed: of the hash; 42 is the survey-wide convention.

    Returns:
        (N,) array of "train", "val" or "test".

    Raises:
        BadInputError: a number is not a cell of this nside.
    """
    cells_N = np.atleast_1d(np.asarray(cells))
    if cells_N.size and (cells_N.dtype.kind not in "iu" or cells_N.min() < 0 or cells_N.max() >= N_CELLS):
        raise BadInputError(
            f"unknown HEALPix cell among {cells_N.size} ({cells_N.dtype}, {cells_N.min()} to {cells_N.max()}); "
            f"a cell is an integer from 0 to {N_CELLS - 1} (nested, nside {NSIDE})."
        )
    unique_U, inverse_N = np.unique(cells_N, return_inverse=True)
    split_U = np.array([split_of_key(int(cell), seed) for cell in unique_U], dtype="<U5")
    return split_U[inverse_N]


def near_other_split(ra: ArrayLike, dec: ArrayLike, radius: float, seed: int = SPLIT_SEED) -> NDArray[np.bool_]:
    """Whether a position lies within about `radius` arcsec of a cell of another split.

    Sixteen points on a circle of twice the radius are looked up, so that every row nearer than `radius` to the border
    is found; a few up to twice as far are found too. Only these rows can have a partner of another split within
    `radius`, which keeps the leak gate small on twenty million rows.

    Args:
        ra, dec: (N,) degrees.
        radius: arcsec.
    """
    ra_N = np.atleast_1d(np.asarray(ra, dtype=np.float64))
    dec_N = np.atleast_1d(np.asarray(dec, dtype=np.float64))
    own_N = split_of_cells(healpix_cell(ra_N, dec_N), seed)
    near_N = np.zeros(ra_N.shape, dtype=bool)
    lon_N, lat_N, distance = np.radians(ra_N), np.radians(dec_N), 2.0 * radius * _ARCSEC
    for angle in np.arange(16) * (np.pi / 8):
        lat2_N = np.arcsin(
            np.clip(np.sin(lat_N) * np.cos(distance) + np.cos(lat_N) * np.sin(distance) * np.cos(angle), -1.0, 1.0)
        )
        lon2_N = lon_N + np.arctan2(
            np.sin(angle) * np.sin(distance) * np.cos(lat_N), np.cos(distance) - np.sin(lat_N) * np.sin(lat2_N)
        )
        ra2_N = np.degrees(lon2_N) % 360.0  # a tiny negative angle comes out as 360 itself
        other_N = split_of_cells(healpix_cell(np.where(ra2_N >= 360.0, 0.0, ra2_N), np.degrees(lat2_N)), seed)
        near_N |= other_N != own_N
    return near_N


def leaking_pairs(ra: ArrayLike, dec: ArrayLike, split: ArrayLike, radius: float) -> NDArray[np.int64]:
    """(P, 2) row numbers of pairs within `radius` arcsec whose splits differ, across RA 0/360 too."""
    pairs_P2 = close_pairs(ra, dec, radius)
    split_N = np.asarray(split)
    return pairs_P2[split_N[pairs_P2[:, 0]] != split_N[pairs_P2[:, 1]]]


def assert_disjoint(
    ra: ArrayLike, dec: ArrayLike, cells: ArrayLike, split: ArrayLike, radius: float = 1.0, seed: int = SPLIT_SEED
) -> None:
    """The leak gate: every row's cell and split follow from its position, and no object is on both sides of a split.

    Args:
        ra, dec: (N,) degrees.
        cells, split: (N,) as stored.
        radius: arcsec within which two rows count as one object.

    Raises:
        CorruptDataError: a stored cell or split is not the position's, or two rows of different splits are one object.
    """
    ra_N, dec_N = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    cells_N, split_N = np.atleast_1d(np.asarray(cells)), np.atleast_1d(np.asarray(split))
    wrong_N = cells_N != healpix_cell(ra_N, dec_N)
    if wrong_N.any():
        i = int(np.argmax(wrong_N))
        raise CorruptDataError(
            f"{int(wrong_N.sum())} rows carry a HEALPix cell that is not their position's, the first is cell "
            f"{cells_N[i]} at RA {ra_N[i]}, Dec {dec_N[i]}; recompute cells and splits from the positions."
        )
    wrong_N = split_N != split_of_cells(cells_N, seed)
    if wrong_N.any():
        i = int(np.argmax(wrong_N))
        raise CorruptDataError(
            f"{int(wrong_N.sum())} rows are in a split that is not their cell's, the first is cell {cells_N[i]} "
            f"in {split_N[i]}; a cell belongs to one split, recompute it."
        )
    leaks_P2 = leaking_pairs(ra_N, dec_N, split_N, radius)
    if len(leaks_P2):
        i, j = (int(k) for k in leaks_P2[0])
        raise CorruptDataError(
            f"{len(leaks_P2)} pairs within {radius} arcsec are on both sides of a split, the first is "
            f"RA {ra_N[i]}, Dec {dec_N[i]} ({split_N[i]}) and RA {ra_N[j]}, Dec {dec_N[j]} ({split_N[j]}); "
            "remove one row of each pair."
        )
