"""Time and memory of false positive rates by stratum from ten million scores.

    python tests/bench/bench_stratified_fpr.py [rows]

One row in a hundred is a positive, a thousandth a control; the rest are negatives of three classes with a sampling
probability. Galaxies have 2.5 images on average, and a catalogue has the exposures and magnitudes of half of them.
`stratify_fpr` runs as a user runs it, with its defaults, in a process of its own on two cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from dark_halo_scope.core.manifest import attempt
from peak_memory import peak_mb

MODULE = "dark_halo_scope.evaluation.stratify_fpr"
ROWS, SEED, CHUNK = 10_000_000, 42, 1_000_000
BRICKS, PER_BRICK = 20_000, 200
CLASSES = ("ring_proxy", "edge_on_proxy", "blue_clumpy")


def score_rows(count: int, rng: np.random.Generator) -> pa.Table:
    """Scores of made-up images; what a host's images share moves their scores together."""
    galaxy = rng.integers(0, BRICKS * PER_BRICK, count)
    kind = np.where(rng.uniform(size=count) < 0.01, 0, np.where(rng.uniform(size=count) < 0.001, 1, 2))
    shared = ((galaxy * 2_654_435_761) % 1000) / 500 - 1
    logit = rng.normal(0, 1.5, count) + shared + np.where(kind == 0, 2.0, -4.0)
    psf = rng.uniform(0.9, 1.7, count)
    x = np.where(kind == 0, rng.uniform(0.4, 2.2, count), np.nan)
    names = np.array([f"{brick:06d}" for brick in range(BRICKS)])
    return pa.table(
        {
            "ra": rng.uniform(0, 360, count),
            "dec": rng.uniform(-60, 30, count),
            "brickname": pa.array(names[galaxy // PER_BRICK]),
            "objid": galaxy % PER_BRICK,
            "kind": pa.array(np.array(["positive", "control", "negative"])[kind]),
            "control_kind": pa.array(np.array(CLASSES)[rng.integers(0, 3, count)], mask=kind != 2),
            "theta_e_over_psf": x,
            "psfsize_r": psf,
            "psfdepth_r": rng.normal(24, 0.4, count),
            "arc_snr": np.where(kind == 0, rng.gamma(2, 15, count), np.nan),
            "sampling_prob": np.where(kind == 2, rng.choice([0.05, 0.5], count), np.nan),
            "score": expit(logit),
        }
    )


def write_inputs(folder: Path, rows: int) -> None:
    """scores.json and parent.json."""
    rng = np.random.default_rng(SEED)
    with attempt(folder / "scores.json", "scores", MODULE, {}, []) as work:
        writer: pq.ParquetWriter | None = None
        for start in range(0, rows, CHUNK):
            table = score_rows(min(CHUNK, rows - start), rng)
            writer = writer or pq.ParquetWriter(work.prefix / "scores.parquet", table.schema, compression="zstd")
            writer.write_table(table, row_group_size=50_000)
        assert writer is not None
        writer.close()
        work.publish(rows_out=rows, facts={"generation": "made up", "split": "test"})
    half = BRICKS * PER_BRICK // 2
    galaxy = np.arange(half)
    parent = pa.table(
        {
            "brickname": pa.array(np.array([f"{brick:06d}" for brick in range(BRICKS)])[galaxy // PER_BRICK]),
            "objid": galaxy % PER_BRICK,
            "nobs_z": rng.integers(1, 15, half).astype(np.int32),
            "rmag": rng.normal(20, 1, half).astype(np.float32),
        }
    )
    with attempt(folder / "parent.json", "parent", MODULE, {}, []) as work:
        pq.write_table(parent, work.prefix / "parent-0000.parquet")
        work.publish()


def measure(folder: Path) -> tuple[float, float, float]:
    """Seconds of wall clock, seconds of CPU, and peak resident memory in MB of one run."""
    arguments = ["--scores", "scores.json", "--galaxies", "parent.json", "--output", "stratified_fpr.csv"]
    start, cpu, peak = time.monotonic(), os.times(), 0.0
    process = subprocess.Popen(["taskset", "-c", "0,1", sys.executable, "-m", MODULE, *arguments], cwd=folder)
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{MODULE} ended with status {process.returncode}")
    end = os.times()
    spent = end.children_user + end.children_system - cpu.children_user - cpu.children_system
    return time.monotonic() - start, spent, peak


def main() -> None:
    """Print one JSON line."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(prefix="bench-fpr-") as directory:
        folder = Path(directory)
        write_inputs(folder, rows)
        seconds, cpu, peak = measure(folder)
        strata = len((folder / "stratified_fpr.csv").read_text().splitlines()) - 1
    found = {"rows": rows, "strata": strata, "wall_s": seconds, "cpu_s": cpu, "peak_mb": peak}
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


if __name__ == "__main__":
    main()
