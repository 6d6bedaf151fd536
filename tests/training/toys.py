"""Toy pairs on disk: a galaxy, the same with an arc, and with the arc's light spread around the ring."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.training.config import TrainSettings

SIZE = 64


@dataclass(frozen=True)
class ToySplit:
    """What a packed split looks like to training."""

    positive: NDArray[np.float16]
    control: NDArray[np.float16]
    hard_negative: NDArray[np.float16]
    rows: pa.Table
    extra: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)
    negative: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 3, SIZE, SIZE), np.float16))
    negative_rows: pa.Table = field(default_factory=lambda: toy_rows("negative", 0, 0))
    pairs: bool = True


def toy_rows(name: str, count: int, seed: int) -> pa.Table:
    """Rows of images that belong to no pair."""
    rng = np.random.default_rng((seed, 1))
    return pa.table(
        {
            "task_id": pa.array([f"{name}-{seed}-{index:04d}" for index in range(count)], pa.string()),
            "brickname": pa.array(["0001m002"] * count, pa.string()),
            "control_kind": pa.array(["unpaired"] * count, pa.string()),
            "psfsize_r": rng.uniform(1.0, 1.4, count),
            "psfdepth_r": rng.uniform(23.6, 24.6, count),
            "ra": 100 + np.arange(count) / 1e3,
            "dec": np.full(count, -20.0),
        }
    )


def toy_galaxies(count: int, seed: int) -> NDArray[np.float16]:
    """Galaxies (N, 3, H, W) without arcs, like the pairs' controls."""
    rng = np.random.default_rng((seed, 2))
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    host = rng.uniform(0.5, 2, (count, 1, 1)) * np.exp(-1.5 * np.hypot(axis[:, None], axis[None]) ** 0.6)
    return (host[:, None] + rng.normal(0, 0.01, (count, 3, SIZE, SIZE))).astype(np.float16)


def write_toy_split(folder: Path, pairs: int, seed: int, arc: float = 8.0, negatives: int = 0) -> ToySplit:
    """Arrays as memory maps under `folder`; `arc` is the arc's height in units of the noise."""
    rng = np.random.default_rng(seed)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    radius, angle = np.hypot(axis[:, None], axis[None]), np.arctan2(axis[:, None], axis[None])
    theta_e_pix = rng.uniform(5, 9, (pairs, 1, 1))
    ring = np.exp(-0.5 * ((radius - theta_e_pix) / 1.8) ** 2)
    towards = rng.uniform(-np.pi, np.pi, (pairs, 1, 1))
    side = np.exp(2 * (np.cos(angle - towards) - 1))
    arc_light = arc * 0.01 * ring * side
    profile = (arc_light * 1.0).sum((1, 2), keepdims=True) / ring.sum((1, 2), keepdims=True)
    spread = ring * profile
    brightness = rng.uniform(0.5, 2, (pairs, 1, 1))
    host = brightness * np.exp(-1.5 * radius**0.6)
    control = host[:, None] + rng.normal(0, 0.01, (pairs, 3, SIZE, SIZE))
    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "positive": control + arc_light[:, None],
        "control": control,
        "hard_negative": control + spread[:, None],
    }
    for kind, array in images.items():
        np.save(folder / f"{kind}.npy", array.astype(np.float16))
    np.save(folder / "negative.npy", toy_galaxies(negatives, seed))
    rows = pa.table(
        {
            "task_id": [f"task-{seed}-{index:04d}" for index in range(pairs)],
            "brickname": ["0001m002"] * pairs,
            "objid": np.arange(pairs),
            "theta_e_arcsec": theta_e_pix[:, 0, 0] * 0.262,
            "psfsize_r": rng.uniform(1.0, 1.4, pairs),
            "psfdepth_r": rng.uniform(23.6, 24.6, pairs),
            "ra": 10 + np.arange(pairs) / 1e3,
            "dec": np.full(pairs, -20.0),
        }
    )
    arrays = {kind: np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in (*images, "negative")}
    return ToySplit(**arrays, rows=rows, negative_rows=toy_rows("negative", negatives, seed))


def toy_settings(**changes: object) -> TrainSettings:
    """A run of seconds; `changes` replace whole sections."""
    values: dict[str, object] = {
        "epochs": 2,
        "precision": "float32",
        "model": {"backbone": "small_cnn", "width": 4, "hidden": 8, "pretrained": False, "crop_pix": 32},
        "optimizer": {"lr": 3e-3, "warmup_epochs": 0.5, "ema_decay": 0.9},
        "sampler": {"batch_pairs": 8, "per_pair": "all"},
        "validation": {"gates_every": None, "gates": {"min_pairs": 4}},
        **changes,
    }
    return TrainSettings.model_validate(values)


def write_packed(path: Path, splits: Mapping[str, ToySplit]) -> Path:
    """A packed dataset of these splits, whose manifest is `path`."""
    kinds = ("positive", "control", "hard_negative") if all(s.pairs for s in splits.values()) else ("positive",)
    with attempt(path, "packed", "dark_halo_scope.images.pack", {}, []) as work:
        for name, split in splits.items():
            (work.prefix / name).mkdir()
            for kind in (*kinds, "negative"):
                np.save(work.prefix / name / f"{kind}.npy", getattr(split, kind))
            pq.write_table(split.rows, work.prefix / name / "rows.parquet")
            pq.write_table(split.negative_rows, work.prefix / name / "negative_rows.parquet")
        work.publish(
            facts={
                "splits": {name: split.rows.num_rows for name, split in splits.items()},
                "negatives": {name: split.negative_rows.num_rows for name, split in splits.items()},
                "size": int(next(iter(splits.values())).positive.shape[-1]),
                "bands": "grz",
                "kinds": list(kinds),
            }
        )
    return path


def write_mined(path: Path, count: int) -> Path:
    """Mined hard negatives, whose manifest is `path`."""
    with attempt(path, "hard_negatives", "dark_halo_scope.images.pack", {}, []) as work:
        np.save(work.prefix / "negative.npy", toy_galaxies(count, 9))
        pq.write_table(toy_rows("mined", count, 9), work.prefix / "negative_rows.parquet")
        work.publish(rows_out=count, facts={"size": SIZE, "bands": "grz"})
    return path


def sky_rows(name: str, count: int, seed: int, lens: bool) -> pa.Table:
    """Rows of real images: tiers and strata, no theta_E."""
    rng = np.random.default_rng((seed, 3, lens))
    tiers = np.array(["A", "B"] if lens else ["N1", "N2"])[(np.arange(count) % 4 > 0).astype(int)]
    return pa.table(
        {
            "task_id": [f"{name}-{seed}-{index:04d}" for index in range(count)],
            "brickname": ["0001m002"] * count,
            "tier": tiers.tolist(),
            "sample_weight": np.where(tiers == "B", 0.5, 1.0),
            "control_kind": pa.array([None if lens else "N1"] * count, pa.string()),
            "nobs_z_bin": np.array(["1-2", "3-5"])[rng.integers(2, size=count)].tolist(),
            "type_bin": np.array(["SER", "DEV", "REX"])[rng.integers(3, size=count)].tolist(),
            "theta_e_arcsec": pa.nulls(count, pa.float64()),
            "psfsize_r": rng.uniform(1.0, 1.4, count),
            "psfdepth_r": rng.uniform(23.6, 24.6, count),
            "ra": 10 + np.arange(count) / 1e3,
            "dec": np.full(count, -20.0),
        }
    )


def sky_split(lenses: int, negatives: int, seed: int, arc: float = 25.0, size: int = SIZE) -> ToySplit:
    """Real lenses and other galaxies: no image has a copy without its arc."""
    rng = np.random.default_rng((seed, 4))
    axis = np.arange(size) - (size - 1) / 2
    radius, angle = np.hypot(axis[:, None], axis[None]), np.arctan2(axis[:, None], axis[None])
    count = lenses + negatives
    host = rng.uniform(0.5, 2, (count, 1, 1)) * np.exp(-1.5 * radius**0.6)
    images = host[:, None] + rng.normal(0, 0.01, (count, 3, size, size))
    ring = np.exp(-0.5 * ((radius - rng.uniform(5, 9, (lenses, 1, 1))) / 1.8) ** 2)
    side = np.exp(2 * (np.cos(angle - rng.uniform(-np.pi, np.pi, (lenses, 1, 1))) - 1))
    images[:lenses] += arc * 0.01 * (ring * side)[:, None]
    images = images.astype(np.float16)
    nothing = images[:0]
    return ToySplit(
        positive=images[:lenses],
        control=nothing,
        hard_negative=nothing,
        rows=sky_rows("lens", lenses, seed, True),
        negative=images[lenses:],
        negative_rows=sky_rows("galaxy", negatives, seed, False),
        pairs=False,
    )


def sky_settings(**changes: object) -> TrainSettings:
    """A run of seconds on real images, with the choices of the calibration plan."""
    values: dict[str, object] = {
        "model": {
            "backbone": "small_cnn",
            "width": 4,
            "hidden": 8,
            "pretrained": False,
            "crop_pix": 32,
            "meta_columns": [],
        },
        "preprocessing": {"stretch": "asinh", "residual": False},
        "sampler": {
            "draw": "images",
            "batch_images": 16,
            "stratify": ["nobs_z_bin", "type_bin"],
            "curriculum": {"start_hard_negative_prob": 0, "end_hard_negative_prob": 0, "anneal_epochs": 0},
        },
        "loss": {"weight_column": "sample_weight", "label_smoothing": {"B": 0.05}},
        "validation": {"monitor": "val_auc", "gates_every": None, "train_images": 10},
        **changes,
    }
    return toy_settings(**values)
