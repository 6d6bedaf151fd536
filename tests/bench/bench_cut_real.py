"""Cutting real images out of coadds as one Spark job: images per second, memory, and what a kill costs.

    python tests/bench/bench_cut_real.py [--dataset results/datasets/realimage_v1] [--rows 100000] [--per-brick 5]

Run it where a dataset of real images has been cut (`snakemake results/datasets/realimage_v1/stamps.json`); its rows are
listed again and again, a few of each brick in a file, as few as a survey's bricks have, so that coadds are opened as
often as for a survey. `cut_real_images` runs on two cores as a user runs it; half way all its processes are killed, and
it is run again to the end. The largest memory of all processes together is sampled from /proc every 0.2 s.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import peak_memory
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths

MODULE = "dark_halo_scope.injection.cut_real"


def make_list(dataset: Path, output: Path, rows: int, per_brick: int) -> int:
    """A manifest of `rows` real images in files of `per_brick` rows of every brick; the number of files."""
    listed = load_manifest(dataset / "manifest.json", "galaxies")
    table = pa.concat_tables(pq.read_table(path) for path in verified_paths(listed))
    bricks = table["brickname"].to_numpy(zero_copy_only=False).astype(str)
    places = [np.flatnonzero(bricks == name) for name in np.unique(bricks)]
    rng = np.random.default_rng(0)
    files = -(-rows // (per_brick * len(places)))
    with attempt(output, "galaxies", "dark_halo_scope.injection.list_real_images", {}, []) as work:
        count = 0
        for number in range(files):
            chosen = np.concatenate([rng.choice(of_brick, min(per_brick, len(of_brick))) for of_brick in places])
            part = table.take(pa.array(np.unique(chosen)))
            pq.write_table(part, work.prefix / f"galaxies-{number:04d}.parquet", compression="zstd")
            count += part.num_rows
        work.publish(rows_out=count, facts=listed.facts)
    return files


def cut(dataset: Path, folder: Path, stop_at: int | None) -> tuple[float, float, int]:
    """Seconds, MB, and stamp files there are at the end; killed once there are `stop_at`."""
    settings = json.loads((dataset / "stamps.provenance.json").read_text())["settings"]
    command = [sys.executable, "-m", MODULE, "--manifest", str(folder / "manifest.json"), "--spark-master", "local[2]"]
    command += ["--coadds", str(dataset / "coadds.json"), "--output", str(folder / "stamps.json")]
    for option, name in (("--settings", "stamps"), ("--real-settings", "real"), ("--quality-settings", "quality")):
        command += [option, json.dumps(settings[name])]
    start = time.perf_counter()
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        memory = 0.0
        while process.poll() is None:
            family = peak_memory.family(process.pid)
            resident = 0.0
            for pid in family:
                with contextlib.suppress(OSError):
                    resident += peak_memory.resident_mb(pid)
            memory = max(memory, resident)
            written = len(list((folder / "stamps").glob("*/stamps-*.parquet")))
            if stop_at is not None and written >= stop_at:
                for pid in family:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
            time.sleep(0.2)
    wall = time.perf_counter() - start
    if process.returncode and stop_at is None:
        sys.exit((folder / "log").read_text()[-4000:])
    return wall, memory, len(list((folder / "stamps").glob("*/stamps-*.parquet")))


def main() -> None:
    """Print what both runs took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=Path("results/datasets/realimage_v1"), help="its manifests")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--per-brick", type=int, default=5, help="rows of a brick in a file")
    options = parser.parse_args()
    if not (options.dataset / "stamps.json").exists():
        print(f"Skipped: {options.dataset}/stamps.json is not there; make it with snakemake first.")
        return
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2] / "lib")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        files = make_list(options.dataset, folder / "manifest.json", options.rows, options.per_brick)
        # A task writes a file for each of the three splits.
        first, memory, written = cut(options.dataset, folder, 3 * files // 2)
        second, again, _ = cut(options.dataset, folder, None)
        stamps = load_manifest(folder / "stamps.json", "stamps")
        rows, failed = stamps.rows_out or 0, sum(stamps.facts["cutout_failed"].values())
        print(f"{rows} images in {files} tasks, {failed} failed, {stamps.bytes / 1e9:.1f} GB")
        print(
            f"killed after {first:.0f} s with {written} of {stamps.objects} files written; the rest took {second:.0f} s"
        )
        print(f"{rows / (first + second):.0f} images/s on two cores, both starts included")
        print(f"largest memory {max(memory, again) / 1024:.1f} GB")
        shutil.rmtree(folder / "stamps")


if __name__ == "__main__":
    main()
