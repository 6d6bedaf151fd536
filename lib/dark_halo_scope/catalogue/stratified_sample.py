"""Which negatives a stratified sample takes: the same ones however the pool is cut into files or partitions.

A stratum is a bin of nobs_z and a type. Within stratum and pool (N1, N2) galaxies are ordered by a hash of their name,
ties by the name itself, and the first so many are taken. No sort of the pool is needed for it: a first pass counts how
many hashes fall into each of `BUCKETS` equal parts of their range, which says up to which part rows are certainly
wanted; a second reads only those, and only the few in the last part are compared with one another.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import floor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.catalogue.negative_rows import N1, N2

BUCKETS = 1024
_BUCKET_SHIFT = np.uint64(54)

Stratum = tuple[str, str]
"""Bin of nobs_z, type."""

Group = tuple[str, str, str]
"""Stratum and pool: bin of nobs_z, type, N1 or N2."""


@dataclass(frozen=True)
class StratumPlan:
    """How many negatives a stratum gives.

    Attributes:
        stratum: bin of nobs_z, type.
        positives: number that it has.
        target: negatives wanted.
        pool: negatives there are, by N1 and N2.
        taken: negatives that are sampled, by N1 and N2.
        n2_shortfall: confusers that are missing, in whose place N1 is taken while there is some.
    """

    stratum: Stratum
    positives: int
    target: int
    pool: Mapping[str, int]
    taken: Mapping[str, int]
    n2_shortfall: int

    @property
    def shortfall(self) -> int:
        """Negatives that are missing from both."""
        return self.target - sum(self.taken.values())

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        wanted_n1 = self.target - self.taken[N2] - self.n2_shortfall
        return {
            "nobs_z_bin": self.stratum[0],
            "type_bin": self.stratum[1],
            "positives": self.positives,
            "target": self.target,
            "pool": dict(self.pool),
            "taken": dict(self.taken),
            "n2_shortfall": self.n2_shortfall,
            "n2_filled_from_n1": max(0, self.taken[N1] - wanted_n1),
            "shortfall": self.shortfall,
        }


@dataclass(frozen=True)
class Boundary:
    """Where a group's sample ends: every bucket below is taken whole, of `bucket` itself `within` galaxies."""

    bucket: int
    within: int


def plan_strata(
    positives: Mapping[Stratum, int], pool: Mapping[Group, int], per_positive: int, n2_share: float
) -> list[StratumPlan]:
    """Numbers to take from every stratum that has positives or negatives, in the order of their names.

    `n2_share` of a stratum's target are confusers, rounded to the nearest (halves up). Where they are too few, N1 takes
    their place; where N1 are too few, nothing does, because more confusers would change the mix.
    """
    strata = sorted({*positives, *((bin_name, kind) for bin_name, kind, _ in pool)})
    plans = []
    for stratum in strata:
        count = positives.get(stratum, 0)
        target = per_positive * count
        has = {name: pool.get((*stratum, name), 0) for name in (N1, N2)}
        wanted_n2 = floor(target * n2_share + 0.5)
        taken_n2 = min(wanted_n2, has[N2])
        taken = {N1: min(target - taken_n2, has[N1]), N2: taken_n2}
        plans.append(StratumPlan(stratum, count, target, has, taken, wanted_n2 - taken_n2))
    return plans


def sampling_hash(bricknames: pa.DictionaryArray, objids: ArrayLike, seed: int) -> NDArray[np.uint64]:
    """(N,) uint64 hash of each galaxy's name, uniform; two galaxies of a brick never have the same.

    The first 8 bytes (big-endian) of sha256("{brickname}_{seed}"), plus objid times an odd constant, through the
    finaliser of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA), which maps 64-bit numbers one to one.

    Args:
        bricknames: (N,) dictionary-encoded strings without nulls.
        objids: (N,) integers.
    """
    brick_K = np.array([_brick_hash(name, seed) for name in bricknames.dictionary.to_pylist()], np.uint64)
    objid_N = np.asarray(objids).astype(np.uint64)
    if not len(objid_N):
        return np.empty(0, np.uint64)
    x_N = brick_K[bricknames.indices.to_numpy()] + objid_N * np.uint64(0x9E3779B97F4A7C15)
    x_N ^= x_N >> np.uint64(30)
    x_N *= np.uint64(0xBF58476D1CE4E5B9)
    x_N ^= x_N >> np.uint64(27)
    x_N *= np.uint64(0x94D049BB133111EB)
    x_N ^= x_N >> np.uint64(31)
    return x_N


@lru_cache(maxsize=1 << 17)
def _brick_hash(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{name}_{seed}".encode()).digest()[:8], "big")


def buckets_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(N,) which of the `BUCKETS` equal parts of their range hashes fall into."""
    return (hashes >> _BUCKET_SHIFT).astype(np.int64)


def boundary(histogram: NDArray[np.int64], take: int) -> Boundary:
    """Where the first `take` of a group end.

    Args:
        histogram: (BUCKETS,) galaxies of the group in each bucket.

    Raises:
        ValueError: the group has fewer.
    """
    cumulative = np.cumsum(histogram)
    if take > cumulative[-1]:
        raise ValueError(f"{take} galaxies are to be taken of {cumulative[-1]}")
    if take == 0:
        return Boundary(-1, 0)
    bucket = int(np.searchsorted(cumulative, take))
    return Boundary(bucket, take - int(cumulative[bucket] - histogram[bucket]))
