"""Sampling negatives by stratum from a pool of 18.6 million, beside DuckDB's window function on the same files.

    python tests/bench/bench_sample_negatives.py [--rows 18600000] [--rounds 3] [--folder DIRECTORY]

Made-up rows with all columns of a pool, 100,000 to a file, as `build_negative_pool` writes them (4 GB, kept in the
folder where one is given); 4,531 positives and 100 negatives for each, as many as the earlier pipeline sampled. Each
side is a process of its own on two cores that reads the files and writes the sample with all columns as zstd Parquet:

- ours as a user runs it (`sample_negatives --spark-master local[2]`), with Spark's start and all files' checksums;
- DuckDB with two threads and 6 GB, `row_number() over (partition by stratum, pool order by hash, name)`, once over
  whole rows and once over names alone with a join afterwards. It is given the numbers to take, which ours plans.

They take turns. Printed are the median wall time and the largest memory of all processes of a side together, sampled
from /proc every 0.1 s. Both must take as many negatives of every stratum and pool.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import duckdb
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import peak_memory
from dark_halo_scope.core.manifest import load_manifest, verified_paths
from negative_scene import PER_BRICK, pool_table, write_pool

ROWS_PER_FILE = 100_000
CORES = (0, 1)
# 4,531 positives, spread over the strata as the pool is.
POSITIVES = {
    "3-5": {"SER": 938, "DEV": 625, "REX": 1563},
    "6-10": {"SER": 340, "DEV": 227, "REX": 566},
    "11+": {"SER": 82, "DEV": 54, "REX": 136},
}
STRATUM = "nobs_z_bin, type_bin, pool"
WHOLE_ROWS = f"""
select * exclude (place, take) from (
    select *, row_number() over (partition by {STRATUM} order by hash(galaxy_id, 42), galaxy_id) as place
    from read_parquet('{{files}}')
) join wanted using ({STRATUM}) where place <= take
"""
NAMES_FIRST = f"""
with chosen as (
    select galaxy_id from (
        select galaxy_id, {STRATUM},
            row_number() over (partition by {STRATUM} order by hash(galaxy_id, 42), galaxy_id) as place
        from read_parquet('{{files}}')
    ) join wanted using ({STRATUM}) where place <= take
)
select * from read_parquet('{{files}}') where galaxy_id in (select galaxy_id from chosen)
"""
DUCKDB = """
import json, sys
import duckdb
query, wanted, output, scratch = sys.argv[1:]
connection = duckdb.connect(config={"threads": 2, "memory_limit": "6GB", "temp_directory": scratch})
connection.execute("create table wanted (nobs_z_bin varchar, type_bin varchar, pool varchar, take bigint)")
connection.executemany("insert into wanted values (?, ?, ?, ?)", json.loads(wanted))
connection.execute(f"copy ({query}) to '{output}' (format parquet, compression zstd)")
"""


@dataclass(frozen=True)
class Cost:
    """Of one run: wall seconds, and MB."""

    wall: float
    memory: float


def measure(command: Sequence[str], folder: Path) -> Cost:
    """Run a command to its end on two cores."""
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, CORES)
        )
        memory = 0.0
        while process.poll() is None:
            resident = 0.0
            for pid in peak_memory.family(process.pid):
                with contextlib.suppress(OSError):
                    resident += peak_memory.resident_mb(pid)
            memory = max(memory, resident)
            time.sleep(0.1)
    wall = time.perf_counter() - start
    if process.returncode:
        sys.exit((folder / "log").read_text()[-4000:])
    return Cost(wall, memory)


def make_pool(folder: Path, rows: int) -> None:
    """negative_pool.json and its files, a brick in one of them."""
    if (folder / "negative_pool.json").exists():
        return

    def parts():
        for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
            yield pool_table(min(ROWS_PER_FILE, rows - first), seed=number, first_brick=first // PER_BRICK)

    write_pool(folder / "negative_pool.json", parts())


def ours(folder: Path, settings: Mapping[str, object]) -> Cost:
    """`sample_negatives` on the pool in `folder`."""
    shutil.rmtree(folder / "negatives", ignore_errors=True)
    module = "dark_halo_scope.catalogue.sample_negatives"
    arguments = ["--pool", "negative_pool.json", "--output", "negatives.json", "--spark-master", "local[2]"]
    return measure([sys.executable, "-m", module, *arguments, "--settings", json.dumps(settings)], folder)


def rival(folder: Path, query: str, wanted: Sequence[Sequence[object]]) -> Cost:
    """The same by DuckDB."""
    files = f"{folder}/{load_manifest(folder / 'negative_pool.json').uri}/negatives-*.parquet"
    (folder / "scratch").mkdir(exist_ok=True)
    text = query.replace("{files}", files)
    arguments = [text, json.dumps(wanted), str(folder / "duckdb.parquet"), str(folder / "scratch")]
    return measure([sys.executable, "-c", DUCKDB, *arguments], folder)


def counts(paths: Sequence[Path]) -> dict[tuple[str, ...], int]:
    """Rows of each stratum and pool."""
    names = ", ".join(f"'{path}'" for path in paths)
    found = duckdb.sql(f"select {STRATUM}, count(*) from read_parquet([{names}]) group by all").fetchall()
    return {tuple(row[:3]): row[3] for row in found}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=18_600_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the pool is, or is made and kept")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2] / "lib")
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(folder))
        folder = Path.cwd()
        make_pool(folder, options.rows)
        # A smaller pool for a quick look has as many fewer positives.
        share = min(1.0, options.rows / 18_600_000)
        positives = {name: {kind: round(n * share) for kind, n in of.items()} for name, of in POSITIVES.items()}
        settings = {"positives": positives}
        costs: dict[str, list[Cost]] = {}
        for _ in range(options.rounds):
            costs.setdefault("ours", []).append(ours(folder, settings))
            taken = counts(verified_paths(load_manifest(folder / "negatives.json")))
            wanted = [[*group, count] for group, count in taken.items()]
            for name, query in (("DuckDB, whole rows", WHOLE_ROWS), ("DuckDB, names first", NAMES_FIRST)):
                costs.setdefault(name, []).append(rival(folder, query, wanted))
                assert counts([folder / "duckdb.parquet"]) == taken, f"{name} took others"
        size = sum(path.stat().st_size for path in verified_paths(load_manifest(folder / "negative_pool.json")))
        rows = sum(pq.read_metadata(p).num_rows for p in verified_paths(load_manifest(folder / "negatives.json")))
        print(f"{options.rows} rows, {size / 1e9:.1f} GB, {rows} sampled\n")
        print("| way | wall s | memory GB |\n|---|---|---|")
        for name, runs in costs.items():
            wall = median(cost.wall for cost in runs)
            print(f"| {name} | {wall:.1f} | {max(cost.memory for cost in runs) / 1024:.1f} |")


if __name__ == "__main__":
    main()
