"""Made-up scores of pairs and of galaxies that are in no pair, in the columns that scoring writes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from dark_halo_scope.core.manifest import attempt


def pair_rows(hosts: int = 300, per_host: int = 2, seed: int = 0, split: str = "test") -> pa.Table:
    """Positives, the control of each (the same for all arcs of a host) and a hard negative."""
    rng = np.random.default_rng(seed)
    host = np.repeat(np.arange(hosts), per_host)
    n = len(host)
    shared = rng.normal(0, 0.7, hosts)
    logits = np.concatenate(
        [2.5 + shared[host] + rng.normal(0, 1, n), (shared + rng.normal(-1, 1, hosts))[host], rng.normal(0, 1, n)]
    )
    psf = rng.uniform(1, 1.45, hosts)[host]
    x = rng.uniform(0.4, 2.1, n)
    three = np.tile
    return pa.table(
        {
            "task_id": [f"{kind}{i:06d}" for kind in "pch" for i in range(n)],
            "ra": three(10 + 0.01 * host, 3),
            "dec": np.full(3 * n, -5.0),
            "brickname": [f"0101m{50 + h // 100:03d}" for h in three(host, 3)],
            "objid": three(host % 100, 3),
            "theta_e_arcsec": three(x * psf, 3),
            "psfsize_r": three(psf, 3),
            "psfdepth_r": three(rng.uniform(23.6, 24.9, hosts)[host], 3),
            "arc_snr": three(rng.uniform(10, 100, n), 3),
            "control_kind": pa.nulls(3 * n, pa.string()),
            "split": [split] * (3 * n),
            "kind": np.repeat(["positive", "control", "hard_negative"], n),
            "label": np.repeat(np.array([1, 0, 0], np.int8), n),
            "theta_e_over_psf": three(x, 3),
            "logit": logits,
            "score": expit(logits),
        }
    )


def negative_rows(count: int, seed: int = 5, first_host: int = 1000, **columns: object) -> pa.Table:
    """Galaxies that are in no pair, each a host of its own."""
    rng = np.random.default_rng(seed)
    rows = pair_rows(count, 1, seed).slice(count, count)
    values = {
        "kind": ["negative"] * count,
        "objid": np.arange(count) + first_host,
        "control_kind": rng.choice(["ring_proxy", "edge_on_proxy"], count),
        "theta_e_over_psf": pa.nulls(count, pa.float64()),
        **columns,
    }
    for name, column in values.items():
        array = column if isinstance(column, pa.Array) else pa.array(column)
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, array)
        else:
            rows = rows.append_column(name, array)
    return rows


def write_scores(path: Path, rows: pa.Table, split: str = "test", model: str = "a" * 64) -> Path:
    """A scores manifest of these rows, in two files."""
    with attempt(path, "scores", "dark_halo_scope.evaluation.scores", {}, []) as work:
        half = rows.num_rows // 2
        for name, part in (("a", rows.slice(0, half)), ("b", rows.slice(half))):
            pq.write_table(part, work.prefix / f"scores-{name}.parquet")
        work.publish(
            rows_out=rows.num_rows,
            facts={"generation": "toy", "split": split, "model_sha256": model, "packed_sha256": "b" * 64},
        )
    return path
