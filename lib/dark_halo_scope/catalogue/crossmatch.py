"""Crossmatch on the sphere: k-d trees over unit vectors in float64, so that RA 0/360 and the poles need no care.

Float32 degrees would be wrong by 0.1 arcsec.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

_ARCSEC = np.pi / (180.0 * 3600.0)


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """(N, 3) unit vectors of positions in degrees; float32 input is refused because it loses 0.1 arcsec.

    Raises:
        TypeError: coordinates are float32 or float16.
    """
    ra_N, dec_N = np.atleast_1d(np.asarray(ra)), np.atleast_1d(np.asarray(dec))
    for values_N in (ra_N, dec_N):
        if values_N.dtype.kind == "f" and values_N.dtype.itemsize < 8:
            raise TypeError(f"coordinates are {values_N.dtype}: a crossmatch needs float64 degrees")
    lon_N, lat_N = np.radians(ra_N.astype(np.float64)), np.radians(dec_N.astype(np.float64))
    return np.stack([np.cos(lat_N) * np.cos(lon_N), np.cos(lat_N) * np.sin(lon_N), np.sin(lat_N)], axis=-1)


def chord(arcsec: float) -> float:
    """Length of the chord between unit vectors that are `arcsec` apart."""
    return 2.0 * float(np.sin(0.5 * arcsec * _ARCSEC))


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> NDArray[np.float64]:
    """Angular separation in arcsec, elementwise."""
    chord_N = np.linalg.norm(unit_vectors(ra1, dec1) - unit_vectors(ra2, dec2), axis=-1)
    return 2.0 * np.arcsin(np.clip(0.5 * chord_N, 0.0, 1.0)) / _ARCSEC


def close_pairs(ra: ArrayLike, dec: ArrayLike, radius: float) -> NDArray[np.int64]:
    """(P, 2) row numbers i < j of all pairs within `radius` arcsec, sorted."""
    xyz_N3 = unit_vectors(ra, dec)
    if len(xyz_N3) < 2:
        return np.empty((0, 2), dtype=np.int64)
    pairs_P2 = cKDTree(xyz_N3).query_pairs(chord(radius), output_type="ndarray").astype(np.int64).reshape(-1, 2)
    pairs_P2.sort(axis=1)
    return pairs_P2[np.lexsort((pairs_P2[:, 1], pairs_P2[:, 0]))]


def groups_within(ra: ArrayLike, dec: ArrayLike, radius: float) -> NDArray[np.int64]:
    """(N,) group number of each row: rows linked by steps of at most `radius` arcsec share one.

    Groups are numbered by their first row.
    """
    count = np.atleast_1d(np.asarray(ra)).size
    pairs_P2 = close_pairs(ra, dec, radius)
    graph = coo_matrix((np.ones(len(pairs_P2), dtype=bool), (pairs_P2[:, 0], pairs_P2[:, 1])), shape=(count, count))
    label_N = connected_components(graph, directed=False)[1]
    _, first_G, inverse_N = np.unique(label_N, return_index=True, return_inverse=True)
    rank_G = np.empty_like(first_G)
    rank_G[np.argsort(first_G)] = np.arange(first_G.size)
    return rank_G[inverse_N].astype(np.int64)


def nearest(
    ra: ArrayLike, dec: ArrayLike, other_ra: ArrayLike, other_dec: ArrayLike, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nearest row of another list within `radius` arcsec.

    Args:
        ra, dec: (N,) degrees.
        other_ra, other_dec: (M,) degrees; M may be 0.
        radius: arcsec, inclusive.

    Returns:
        (N,) row number in the other list, -1 where there is none; (N,) separation in arcsec, infinite there.
    """
    xyz_N3, other_M3 = unit_vectors(ra, dec), unit_vectors(other_ra, other_dec)
    if not len(other_M3) or not len(xyz_N3):
        return np.full(len(xyz_N3), -1, dtype=np.int64), np.full(len(xyz_N3), np.inf)
    # A hair more than the radius, because the tree's bound is exclusive and `radius` is not.
    chord_N, index_N = cKDTree(other_M3).query(xyz_N3, distance_upper_bound=chord(radius) * (1.0 + 1e-9))
    arcsec_N = 2.0 * np.arcsin(np.clip(0.5 * np.where(np.isfinite(chord_N), chord_N, 2.0), 0.0, 1.0)) / _ARCSEC
    found_N = np.isfinite(chord_N)
    return np.where(found_N, index_N, -1).astype(np.int64), np.where(found_N, arcsec_N, np.inf)
