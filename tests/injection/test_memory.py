"""What a task promises about memory: it does not grow with its rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import SIDE, planes, row, write_brick
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.injection.manifest import MANIFEST_SCHEMA
from dark_halo_scope.injection.measure_sources import bank_checksums
from dark_halo_scope.injection.source_config import SourceBankSettings
from dark_halo_scope.injection.sources import open_bank
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings
from source_banks import exponential, write_galsim_bank

FEW, MANY = 300, 3000
# Each row with a source galaxy of its own, of 1 MB.
FEW_GALAXIES, MANY_GALAXIES, GALAXY_PIXELS = 25, 150, 499
ROWS = {"few": FEW, "many": MANY, "few-galaxies": FEW_GALAXIES, "many-galaxies": MANY_GALAXIES}
# A control of 64 pixels has 49 kB: the additional rows hold 130 MB. The additional galaxies have 125 MB.
MOST_GROWTH_MB = 90

WORK = """
import functools, json, sys
from dataclasses import replace
from pathlib import Path
import peak_memory
from dark_halo_scope.core.manifest import Target, load_manifest
from dark_halo_scope.injection import galsim_bank, sources, stamp_files, stamp_parquet
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.description import load_survey
if sys.argv[2] == "whole files in memory":
    stamp_parquet._ROW_GROUP = 10**9

# Galaxies of one HDU: it is measured once, and each has pixels of its own.
@functools.cache
def measured(bank):
    return galsim_bank.GalsimBank._read(bank, 0)

def read(bank, row):
    return replace(measured(bank), image=measured(bank).image.copy())

galsim_bank.GalsimBank._read, galsim_bank.GalsimBank.read = galsim_bank.GalsimBank.read, read

# A bound that few galaxies reach already.
sources._CACHE_BYTES = 10**9 if sys.argv[2] == "all galaxies kept" else 2 * 10**7
manifest, coadds, bank = (load_manifest(Path(f"{name}.json")) for name in ("manifest", "coadds", "sources"))
settings = StampSettings(rows_per_file=10**6)
job = stamp_files.Job(manifest, coadds, load_survey(Path("survey.json")), settings, Target("out"), bank)
(written,) = stamp_files.inject_file(f"manifest-train-{sys.argv[1]}.parquet", job)
assert written.error is None and not written.reasons, written
print(json.dumps([written.rows, peak_memory.peak_mb()]))
"""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A brick with many controls, two of each host, and many arcs, each of another galaxy."""
    monkeypatch.chdir(tmp_path)
    galaxies = {"IDENT": np.arange(MANY_GALAXIES), "GAL_HDU": np.zeros(MANY_GALAXIES, int)}
    bank = write_galsim_bank(tmp_path / "bank", [1e4 * exponential(GALAXY_PIXELS, 90.0)], **galaxies)
    write_brick(tmp_path / "coadds", planes())
    files = {name: "none" for name in ("bricks", "brick_summary", "sweeps", "photoz", "sources")}
    with attempt(Path("survey.json"), "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
        where = {"coadds": str(tmp_path / "coadds"), "lenses": [], "sources": str(bank)}
        work.publish(facts=facts | {"files": files | where})
    with attempt(Path("sources.json"), "sources", "dark_halo_scope.injection.measure_sources", {}, []) as work:
        checksums = bank_checksums(open_bank(bank, SourceBankSettings()).file)
        work.publish(facts={"settings": {}, "bank": {"files": checksums}})
    rng = np.random.default_rng(0)
    places = rng.uniform(40, SIDE - 40, (MANY // 2, 2))
    empty = {"is_control": 1, "source_mode": None, "lens_model": "CONTROL", "theta_e_arcsec": 0.0}
    rows = [row(*places[number // 2], number=number, **empty) for number in range(MANY)]
    arcs = [
        row(*places[number], number=number, source_mode="image", source_id=str(number))
        for number in range(MANY_GALAXIES)
    ]
    with attempt(Path("manifest.json"), "manifest", "dark_halo_scope.injection.manifest", {}, []) as work:
        for name, count in ROWS.items():
            chosen = (arcs if "galaxies" in name else rows)[:count]
            table = pa.Table.from_pylist(chosen, schema=MANIFEST_SCHEMA)
            pq.write_table(table, work.prefix / f"manifest-train-{name}.parquet")
        work.publish(rows_out=sum(ROWS.values()), facts={"settings": {"replicates": {"train": 1, "val": 1, "test": 1}}})
    settings = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.0, attempts=1)
    cache_coadds(Path("survey.json"), Path("manifest.json"), Path("coadds.json"), settings, tmp_path / "cache", 1)
    return tmp_path


def _peak_mb(folder: Path, name: str, how: str = "row groups") -> float:
    """Largest resident memory of a process that injects one manifest file, MB."""
    # The path that pytest gave itself.
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WORK, name, how]
    done = subprocess.run(command, cwd=folder, env=os.environ | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, peak = json.loads(done.stdout)
    assert rows == ROWS[name]
    return peak


def test_ten_times_the_rows_in_one_file_take_no_more_memory(inputs: Path) -> None:
    few, many = _peak_mb(inputs, "few"), _peak_mb(inputs, "many")
    assert many - few < MOST_GROWTH_MB
    # And the test would notice: a file that is held whole.
    assert _peak_mb(inputs, "many", "whole files in memory") - few > MOST_GROWTH_MB


@pytest.mark.slow
def test_more_source_galaxies_in_one_file_take_no_more_memory(inputs: Path) -> None:
    few, many = _peak_mb(inputs, "few-galaxies"), _peak_mb(inputs, "many-galaxies")
    assert many - few < MOST_GROWTH_MB
    assert _peak_mb(inputs, "many-galaxies", "all galaxies kept") - few > MOST_GROWTH_MB
