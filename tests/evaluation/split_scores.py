"""Scores of two splits on disk, drawn from a network whose calibration is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from dark_halo_scope.core.manifest import attempt


def draw_rows(
    hosts: int, seed: int, split: str, slope: float = 1.0, offset: float = 0.0, arcs_per_host: int = 1
) -> pa.Table:
    """Scores of positives, their controls and hard negatives; logits are `slope` x (true log odds) + `offset`.

    True log odds are those of two normal distributions of unit width, two apart, in equal numbers.
    """
    rng = np.random.default_rng(seed)
    host = np.repeat(np.arange(hosts), arcs_per_host)
    n = len(host)
    control = rng.normal(-1, 1, hosts)[host]
    parts = {"positive": rng.normal(1, 1, n), "control": control, "hard_negative": rng.normal(0, 1, n)}
    theta_e = np.tile(rng.uniform(0.5, 2.5, n), 3)
    logits = slope * 2 * np.concatenate(list(parts.values())) + offset
    psfsize = np.round(rng.uniform(1.0, 1.5, hosts), 2)
    return pa.table(
        {
            "task_id": [f"{split}{i}" for i in range(3 * n)],
            "ra": np.tile(10 + host / 1000, 3),
            "dec": np.tile(host / 1000, 3),
            "brickname": [f"{100 + number % 4:04d}p000" for number in np.tile(host, 3)],
            "objid": np.tile(host, 3),
            "theta_e_arcsec": theta_e,
            "psfsize_r": np.tile(psfsize[host], 3),
            "psfdepth_r": np.tile(23.6 + 0.8 * rng.random(hosts)[host], 3),
            "z_phot": np.tile(rng.uniform(0.1, 0.9, hosts)[host], 3),
            "lensed_mag_r": np.tile(rng.uniform(20, 24, n), 3),
            "sampling_weight": np.tile(rng.uniform(0, 2, n), 3),
            "split": [split] * (3 * n),
            "kind": np.repeat(list(parts), n),
            "label": np.repeat(np.array([1, 0, 0], dtype=np.int8), n),
            "theta_e_over_psf": theta_e / np.tile(psfsize[host], 3),
            "logit": logits,
            "score": expit(logits),
        }
    )


def write_scores(path: Path, rows: pa.Table, split: str, model: str = "a" * 64) -> Path:
    """Rows as a scores manifest."""
    facts = {"generation": "toy", "split": split, "model_sha256": model, "packed_sha256": "b" * 64}
    with attempt(path, "scores", "dark_halo_scope.evaluation.score", {}, []) as work:
        pq.write_table(rows, work.prefix / "scores.parquet")
        work.publish(rows_out=rows.num_rows, facts=facts)
    return path
