"""Scores of real images on disk: lenses of both tiers and galaxies of both pools, drawn from known distributions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from dark_halo_scope.core.manifest import attempt

CATEGORIES = ("ring_proxy", "edge_on_proxy", "blue_clumpy", "large_galaxy")
CIRCULAR = "machine_learning_this_survey"


def draw_images(
    positives: int = 200,
    negatives: int = 3000,
    seed: int = 1,
    split: str = "test",
    separation: float = 4.0,
    first_cell: int = 0,
) -> pa.Table:
    """Every second lens is Tier-A; every fifth negative is an N2, drawn twice as often as the survey has them.

    Logits are normal: negatives around -separation / 2, lenses of Tier-A around +separation / 2, of Tier-B half as far.
    """
    rng = np.random.default_rng(seed)
    n = positives + negatives
    lens = np.arange(n) < positives
    number = np.arange(n)
    tier_a = lens & (number % 2 == 0)
    n2 = ~lens & (number % 5 == 0)
    centre = np.where(tier_a, separation / 2, np.where(lens, separation / 4, -separation / 2))
    # As float32, which networks return.
    logit = rng.normal(centre, 1).astype(np.float32).astype(float)
    category = [CATEGORIES[i // 5 % 4] if flag else None for i, flag in enumerate(n2)]
    return pa.table(
        {
            "task_id": [f"{split}{i:06d}" for i in number],
            "galaxy_id": [f"{split}{i:06d}" for i in number],
            "ra": 10 + number / 1000,
            "dec": number / 1000,
            "brickname": [f"{100 + i % 4:04d}p000" for i in number],
            "objid": number.astype(np.int32),
            "psfsize_r": rng.uniform(1.0, 1.6, n),
            "psfdepth_r": rng.uniform(23.6, 25.4, n),
            "nobs_z": rng.integers(3, 14, n).astype(np.int32),
            "healpix_128": first_cell + number % 40 * 256,
            "tier": ["A" if a else "B" if is_lens else None for a, is_lens in zip(tier_a, lens, strict=True)],
            "discovery": [(CIRCULAR if i % 4 < 2 else "other") if flag else None for i, flag in enumerate(lens)],
            "pool": [None if flag else "N2" if hard else "N1" for flag, hard in zip(lens, n2, strict=True)],
            "confuser_category": pa.array(category, pa.string()),
            "type": [("SER", "DEV", "REX")[i % 3] for i in number],
            "sampling_prob": pa.array(np.where(lens, np.nan, np.where(n2, 0.2, 0.1)), from_pandas=True),
            "split": [split] * n,
            "kind": ["positive" if flag else "negative" for flag in lens],
            "label": lens.astype(np.int8),
            "logit": logit,
            "score": expit(logit),
        }
    )


def write_scores(path: Path, rows: pa.Table, split: str, model: str = "a" * 64, packed: str = "b" * 64) -> Path:
    """Rows as a scores manifest."""
    facts = {"generation": "real_resnet18", "split": split, "model_sha256": model, "packed_sha256": packed}
    with attempt(path, "scores", "dark_halo_scope.evaluation.score", {}, []) as work:
        pq.write_table(rows, work.prefix / "scores.parquet")
        work.publish(rows_out=rows.num_rows, facts=facts)
    return path


def write_both(model: str = "a" * 64, **test: object) -> None:
    """val.json and test.json in the working directory, of other cells."""
    write_scores(Path("val.json"), draw_images(seed=2, split="val", first_cell=128), "val", model)
    write_scores(Path("test.json"), draw_images(**test), "test", model)  # type: ignore[arg-type]
