"""What names a task and what seeds it: pure functions, so that any partitioning of the work gives the same tasks."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = (
    "theta_e",
    "mag_r",
    "reff",
    "sersic_n",
    "src_e",
    "src_phi",
    "colour_gr",
    "colour_rz",
    "offset_radius",
    "offset_angle",
    "lens_e1",
    "lens_e2",
    "shear",
    "shear_phi",
    "arc_snr",
    "source_mode",
)
"""Name of each uniform number that a task owns. Append only: a number's place here is part of every stored dataset."""


def fixed_decimals(value: float, places: int = 6) -> str:
    """Decimal text rounded half-even on the exact binary value, as Spark's `format_number` writes coordinates.

    Python's own formatting is correctly rounded on the exact value and takes the even neighbour on a tie.
    """
    return f"{value:.{places}f}"


def task_id(
    experiment: str, selection_set: str, split: str, brick: str, ra: float, dec: float, config: str, replicate: int
) -> str:
    """Sha256 (hex) of `experiment|selection_set|split|brick|ra(6dp)|dec(6dp)|config|replicate`."""
    parts = (experiment, selection_set, split, brick, fixed_decimals(ra), fixed_decimals(dec), config, str(replicate))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def task_seed(task: str, seed: int) -> int:
    """Seed of a task, a non-negative int64: the first 8 bytes of sha256(`task_id|seed`) less their top bit."""
    return int.from_bytes(hashlib.sha256(f"{task}|{seed}".encode()).digest()[:8], "big") >> 1


def uniforms(seeds: Sequence[int]) -> NDArray[np.float64]:
    """(N, len(DRAWS)) uniform numbers in [0, 1), one row per task seed, each from a generator of its own."""
    draws_ND = np.empty((len(seeds), len(DRAWS)))
    for row_D, seed in zip(draws_ND, seeds, strict=True):
        np.random.Generator(np.random.PCG64(seed)).random(out=row_D)
    return draws_ND


def hash_fraction(text: str) -> float:
    """Uniform number in [0, 1) from the first 8 bytes of sha256(text)."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53


def choice(task: str, salt: str, count: int) -> int:
    """Which of `count` things a task takes: blake2b-8(task_id + salt), little-endian, modulo the count.

    Raises:
        ValueError: there is nothing to choose from.
    """
    if count < 1:
        raise ValueError(f"task {task} has nothing to choose from")
    return int.from_bytes(hashlib.blake2b((task + salt).encode(), digest_size=8).digest(), "little") % count
