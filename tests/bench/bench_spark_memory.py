"""Peak memory and CPU of the Spark rules at 1 and 10 times the rows, on the same bricks.

    python tests/bench/bench_spark_memory.py [rule ...]

Each rule runs as a user runs it, in a process of its own with one core, so that there is one task at a time. Sampled
from /proc: the peak resident memory of the JVM and of the largest Python process below it, and CPU seconds of all.
`inject_stamps` has four bricks of 600 pixels and one Sersic arc a row, `inject_stamps_galaxies` arcs of 1,200 galaxies
of 200 pixels in 12 files; `build_injection_manifest` made-up hosts, two
tasks each; `select_parent_sample` and `select_confusers` one sweep file, of which one galaxy in twenty is selected.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import peak_memory
import tiny_survey
from brick_scene import planes, row, write_brick
from dark_halo_scope.catalogue import lenses
from dark_halo_scope.catalogue.parent import PARENT_SCHEMA
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.injection.manifest import MANIFEST_SCHEMA
from dark_halo_scope.injection.measure_sources import bank_checksums
from dark_halo_scope.injection.source_config import SourceBankSettings
from dark_halo_scope.injection.sources import open_bank
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings
from source_banks import exponential, write_galsim_bank

BRICKS = ("0001p000", "0003p000", "0006p000", "0008p000")
SIDE = 600
GALAXY_FILES, GALAXIES_PER_FILE = 12, 100
TICKS = os.sysconf("SC_CLK_TCK")


def measure(module: str, arguments: Sequence[str], folder: Path) -> dict[str, float]:
    """Run a command line; its CPU seconds, and the peak memory of its JVM and of its largest Python process, MB."""
    command = [sys.executable, "-m", module, *arguments, "--spark-master", "local[1]"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        jvm, python, seconds = 0.0, 0.0, {}
        while process.poll() is None:
            for pid in peak_memory.family(process.pid):
                try:
                    name = (Path("/proc") / str(pid) / "comm").read_text()
                    peak = peak_memory.peak_mb(pid)
                    stat = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                seconds[pid] = (int(stat[11]) + int(stat[12])) / TICKS
                if "java" in name:
                    jvm = max(jvm, peak)
                elif pid != process.pid:
                    python = max(python, peak)
            time.sleep(0.05)
    if process.returncode:
        sys.exit((folder / "log").read_text())
    return {"cpu": sum(seconds.values()), "jvm": jvm, "python": python}


def write_bank(folder: Path) -> Path:
    """A source bank whose images, all kept, had 200 MB."""
    rng = np.random.default_rng(1)
    for number in range(GALAXY_FILES):
        images = [1e4 * exponential(199, rng.uniform(25.0, 35.0)) for _ in range(GALAXIES_PER_FILE)]
        bank = write_galsim_bank(folder / "bank" / str(number), images)
        bank.with_name("images.fits").rename(folder / "bank" / f"images-{number:02d}.fits")
    count = GALAXY_FILES * GALAXIES_PER_FILE
    places = {"GAL_HDU": np.arange(count) % GALAXIES_PER_FILE, "IDENT": np.arange(count)}
    names = np.array([f"images-{number // GALAXIES_PER_FILE:02d}.fits" for number in range(count)])
    return write_galsim_bank(folder / "bank", [np.ones((9, 9))], GAL_FILENAME=names, **places)


def describe(folder: Path, bank: Path | None = None) -> None:
    """survey.json and sources.json of a survey that is nothing but bricks and a source bank."""
    files = {name: "none" for name in ("bricks", "brick_summary", "sweeps", "photoz")} | {"sources": str(bank)}
    facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
    with attempt(folder / "survey.json", "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        work.publish(facts=facts | {"files": files | {"coadds": str(folder / "coadds"), "lenses": []}})
    with attempt(folder / "sources.json", "sources", "dark_halo_scope.injection.measure_sources", {}, []) as work:
        checksums = bank_checksums(open_bank(bank, SourceBankSettings()).file) if bank else {}
        work.publish(facts={"settings": {}, "bank": {"files": checksums}})


def stamps(galaxies: bool, folder: Path, rows: int) -> dict[str, float]:
    """inject_stamps, of Sersic sources or of a bank's galaxies."""
    describe(folder, write_bank(folder) if galaxies else None)
    rng = np.random.default_rng(0)
    tasks = []
    for number, brick in enumerate(BRICKS):
        write_brick(folder / "coadds", planes(SIDE, number), brick, lossless=False)
    for number in range(rows):
        values: dict[str, object] = {"side": SIDE, "number": number, "brickname": BRICKS[number % 4]}
        if galaxies:
            ident = int(rng.integers(GALAXY_FILES * GALAXIES_PER_FILE))
            values |= {"source_mode": "image", "source_id": str(ident)}
        tasks.append(row(*rng.uniform(40, SIDE - 40, 2), **values))
    with attempt(folder / "manifest.json", "manifest", "dark_halo_scope.injection.manifest", {}, []) as work:
        table = pa.Table.from_pylist(tasks, schema=MANIFEST_SCHEMA)
        pq.write_table(table, work.prefix / "manifest-train-0000.parquet")
        work.publish(rows_out=rows, facts={"settings": {"replicates": {"train": 1, "val": 1, "test": 1}}})
    coadds = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.0, attempts=1)
    cache_coadds(folder / "survey.json", folder / "manifest.json", folder / "coadds.json", coadds, folder / "cache", 1)
    names = ("survey", "manifest", "coadds", "sources")
    inputs = [part for name in names for part in (f"--{name}", f"{name}.json")]
    return measure("dark_halo_scope.injection.stamps", [*inputs, "--output", "stamps.json"], folder)


def sweep(module: str, settings: Mapping[str, float], folder: Path, rows: int) -> dict[str, float]:
    """A rule that selects galaxies of one sweep file."""
    sweeps = {"sweep-000p000-360p090": tiny_survey.crowded_rows(rows)}
    survey = tiny_survey.write_survey(folder, sweeps, "far,180.0,89.0,-,galaxy,confident,bench")
    inputs = ["--survey", str(survey.description)]
    lenses.main([*inputs, "--output", str(folder / "lenses.json")])
    selected = ["--lenses", "lenses.json", "--settings", json.dumps(settings), "--output", "selected.json"]
    return measure(module, [*inputs, *selected], folder)


def manifest(folder: Path, rows: int) -> dict[str, float]:
    """build_injection_manifest on made-up hosts, forty to a brick."""
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, rows), rng.uniform(-30, 30, rows)
    cells = healpix_cell(ra, dec)
    known = {
        "brickname": [f"{number // 40 % 3600:04d}{'mp'[number % 2]}{number // 144_000:03d}" for number in range(rows)],
        "objid": np.arange(rows),
        "release": np.full(rows, 10000),
        "type": ["SER"] * rows,
        "ra": ra,
        "dec": dec,
        "healpix_128": cells,
        "split": split_of_cells(cells).tolist(),
    }
    known |= {f"psfsize_{band}": rng.uniform(1.0, 1.5, rows) for band in "grz"}
    columns = []
    for field in PARENT_SCHEMA:
        value = known.get(field.name)
        if value is None:
            plain = {pa.string(): "", pa.bool_(): True}.get(field.type, 1)
            value = rng.uniform(18, 21, rows) if pa.types.is_floating(field.type) else [plain] * rows
        columns.append(pa.array(value).cast(field.type))
    table = pa.Table.from_arrays(columns, schema=PARENT_SCHEMA)
    with attempt(folder / "parent.json", "parent", "dark_halo_scope.catalogue.parent", {}, []) as work:
        for number, start in enumerate(range(0, rows, 20_000)):
            pq.write_table(table.slice(start, 20_000), work.prefix / f"parent-{number:04d}.parquet")
        types = {field.name: str(field.type) for field in PARENT_SCHEMA}
        work.publish(rows_out=rows, columns=types, facts={"lrg_mode": "v3_color_relaxed"})
    with attempt(folder / "sources.json", "sources", "dark_halo_scope.injection.measure_sources", {}, []) as work:
        work.publish(facts={"settings": {}})
    settings = {"replicates": dict.fromkeys(("train", "val", "test"), 2), "hosts_per_file": 2000}
    settings |= {"source_fractions": {"sersic": 1, "clumpy": 0, "image": 0}}
    names = ["--parent", "parent.json", "--sources", "sources.json", "--output", "manifest.json"]
    return measure("dark_halo_scope.injection.manifest", [*names, "--settings", json.dumps(settings)], folder)


RULES: dict[str, tuple[Callable[[Path, int], dict[str, float]], int]] = {
    "select_parent_sample": (
        partial(sweep, "dark_halo_scope.catalogue.parent", {"rows_per_file": 3000, "max_quarantined": 0.5}),
        60_000,
    ),
    "select_confusers": (partial(sweep, "dark_halo_scope.catalogue.select_confusers", {"rows_per_file": 3000}), 60_000),
    "build_injection_manifest": (manifest, 20_000),
    "inject_stamps": (partial(stamps, False), 400),
    "inject_stamps_galaxies": (partial(stamps, True), 400),
}


def main() -> None:
    """Print each rule's peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", default=list(RULES), choices=list(RULES))
    for rule in parser.parse_args().rules:
        run, rows = RULES[rule]
        found = []
        for scale in (1, 10):
            with tempfile.TemporaryDirectory() as name:
                os.chdir(name)
                peak = run(Path(name), scale * rows)
                os.chdir("/")
            found.append(peak["cpu"])
            print(
                f"{rule:26s} {scale * rows:7d} rows: CPU {peak['cpu']:6.1f} s, JVM {peak['jvm']:5.0f} MB, "
                f"Python {peak['python']:5.0f} MB, together {peak['jvm'] + peak['python']:5.0f} MB",
                flush=True,
            )
        print(f"{rule:26s} {1e3 * (found[1] - found[0]) / (9 * rows):.2f} ms of CPU an additional row")


if __name__ == "__main__":
    main()
