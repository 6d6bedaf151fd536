"""Pairs with a known cue and networks that know only that cue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dark_halo_scope.images.packed import ImageBatch

SCALE = 0.262
SIZE = 32
THETA_E = 1.8
PSFSIZE = 1.2


@dataclass
class ToySplit:
    positive: np.ndarray
    control: np.ndarray
    hard_negative: np.ndarray
    rows: pa.Table


def polar() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    return np.hypot(axis, axis[:, None]), np.arctan2(axis[:, None], axis[None, :])


RADIUS, ANGLE = polar()
RING = np.exp(-0.5 * ((RADIUS - THETA_E) / 0.35) ** 2)
RING_PIXELS = np.abs(RADIUS - THETA_E) < 0.5
CORE_PIXELS = RADIUS < 0.5


def make_split(pairs: int = 240, seed: int = 0, core_excess: float = 0.0, per_host: int = 2) -> ToySplit:
    """Noisy hosts, with one-sided arcs; hard negatives have the arc's light spread around the ring.

    `core_excess` is light that positives and hard negatives have in the core and controls lack.
    """
    rng = np.random.default_rng(seed)
    control = rng.normal(0, 0.05, (pairs, 3, SIZE, SIZE)) + np.exp(-RADIUS / 0.5)
    phase = rng.uniform(0, 2 * np.pi, (pairs, 1, 1, 1))
    core = core_excess * CORE_PIXELS
    positive = control + RING * (1 + np.cos(ANGLE - phase)) + core
    hard_negative = control + RING + core
    index = np.arange(pairs)
    rows = pa.table(
        {
            "task_id": [f"task{i:05d}" for i in index],
            "theta_e_arcsec": np.full(pairs, THETA_E),
            "psfsize_r": np.full(pairs, PSFSIZE),
            "psfdepth_r": np.full(pairs, 24.5),
            "ra": 10 + 0.01 * (index // per_host),
            "dec": np.full(pairs, -5.0),
            "brickname": [f"0101m{50 + i // 100:03d}" for i in index],
            "objid": index // per_host,
            "healpix_128": index // 7,
            "arc_snr": np.full(pairs, 40.0),
            "is_control": np.zeros(pairs, dtype=np.int32),
            "cutout_ok": np.ones(pairs, dtype=np.int32),
            "split": ["test"] * pairs,
            "sampling_weight": np.ones(pairs),
        }
    )
    return ToySplit(*(a.astype(np.float16) for a in (positive, control, hard_negative)), rows)


def batches(
    split: ToySplit, batch: int = 512, kinds: Sequence[str] = ("positive", "control", "hard_negative")
) -> Iterator[ImageBatch]:
    """Images of the split, as a packed one hands them out."""
    for kind in kinds:
        for first in range(0, split.rows.num_rows, batch):
            images = getattr(split, kind)[first : first + batch]
            yield ImageBatch(kind, first, images, split.rows.slice(first, batch))


def sees_core(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
    """A shortcut: the core is brighter."""
    light = images[..., CORE_PIXELS].mean(axis=(1, 2))
    return 40 * (light - np.exp(-RADIUS / 0.5)[CORE_PIXELS].mean() - 0.25)


def sees_radial_profile(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
    """A shortcut: there is light at the Einstein radius, all around or not."""
    light = images[..., RING_PIXELS].mean(axis=(1, 2))
    return 20 * (light - np.exp(-RADIUS / 0.5)[RING_PIXELS].mean() - 0.35)


def sees_arcs(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
    """A finder: the light at the Einstein radius is one-sided."""
    ring = images[..., RING_PIXELS].mean(axis=1)
    dipole = np.abs(ring @ np.exp(1j * ANGLE[RING_PIXELS])) / RING_PIXELS.sum()
    return 60 * (dipole - 0.15)
