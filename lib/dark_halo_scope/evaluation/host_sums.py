"""Bootstrap of sums over hosts: what depends on rows only through sums is resampled without touching a row again."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from dark_halo_scope.evaluation.intervals import FloatArray


def host_sums(
    values: ArrayLike, group: NDArray[np.integer], host: NDArray[np.integer], groups: int
) -> sparse.csr_array:
    """Sums of values by host and group, (H, K), sparse: a host is in few groups.

    Args:
        values: (N,).
        group: which of `groups` each row is in, (N,); rows of a group below 0 count nowhere.
        host: number of each row's host from 0, (N,).
        groups: K.
    """
    inside = group >= 0
    shape = (int(host.max()) + 1, groups)
    return sparse.csr_array((np.asarray(values, dtype=float)[inside], (host[inside], group[inside])), shape=shape)


def resample(sums_HK: sparse.csr_array, rng: np.random.Generator, replicates: int) -> FloatArray:
    """(B, K) totals when as many hosts as there are were drawn with replacement."""
    hosts = sums_HK.shape[0]
    columns = sums_HK.T.tocsr()
    return np.array(
        [columns @ np.bincount(rng.integers(0, hosts, hosts), minlength=hosts).astype(float) for _ in range(replicates)]
    ).reshape(replicates, sums_HK.shape[1])


def resample_together(
    sums: Sequence[sparse.csr_array], rng: np.random.Generator, replicates: int
) -> tuple[FloatArray, ...]:
    """`resample` of several sums over the same hosts, with the same draws: (B, K) of each, K its own."""
    drawn = resample(sparse.csr_array(sparse.hstack(sums)), rng, replicates)
    return tuple(np.split(drawn, np.cumsum([part.shape[1] for part in sums])[:-1], axis=1))
