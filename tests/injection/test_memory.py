"""What a task promises about memory: it does not grow with its rows."""

import json
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
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings

FEW, MANY = 300, 3000
# A control of 64 pixels has 49 kB: the additional rows hold 130 MB.
MOST_GROWTH_MB = 90

WORK = """
import json, resource, sys
from pathlib import Path
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.injection import stamp_files, stamp_parquet
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.description import load_survey
if sys.argv[2] == "whole files in memory":
    stamp_parquet._ROW_GROUP = 10**9
manifest, coadds, sources = (load_manifest(Path(f"{name}.json")) for name in ("manifest", "coadds", "sources"))
settings = StampSettings(rows_per_file=10**6)
job = stamp_files.Job(manifest, coadds, load_survey(Path("survey.json")), settings, "out", sources)
(written,) = stamp_files.inject_file(f"manifest-train-{sys.argv[1]}.parquet", job)
assert written.error is None and not written.reasons, written
print(json.dumps([written.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A brick with many controls, two of each host."""
    monkeypatch.chdir(tmp_path)
    write_brick(tmp_path / "coadds", planes())
    files = {name: "none" for name in ("bricks", "brick_summary", "sweeps", "photoz", "sources")}
    with attempt(Path("survey.json"), "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
        work.publish(facts=facts | {"files": files | {"coadds": str(tmp_path / "coadds"), "lenses": []}})
    with attempt(Path("sources.json"), "sources", "dark_halo_scope.injection.measure_sources", {}, []) as work:
        work.publish(facts={"settings": {}})
    rng = np.random.default_rng(0)
    places = rng.uniform(40, SIDE - 40, (MANY // 2, 2))
    empty = {"is_control": 1, "source_mode": None, "lens_model": "CONTROL", "theta_e_arcsec": 0.0}
    rows = [row(*places[number // 2], number=number, **empty) for number in range(MANY)]
    with attempt(Path("manifest.json"), "manifest", "dark_halo_scope.injection.manifest", {}, []) as work:
        for name, count in (("few", FEW), ("many", MANY)):
            table = pa.Table.from_pylist(rows[:count], schema=MANIFEST_SCHEMA)
            pq.write_table(table, work.prefix / f"manifest-train-{name}.parquet")
        work.publish(rows_out=FEW + MANY, facts={"settings": {"replicates": {"train": 1, "val": 1, "test": 1}}})
    settings = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.0, attempts=1)
    cache_coadds(Path("survey.json"), Path("manifest.json"), Path("coadds.json"), settings, tmp_path / "cache", 1)
    return tmp_path


def _peak_mb(folder: Path, name: str, how: str = "row groups") -> float:
    """Largest resident memory of a process that injects one manifest file, MB."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, name, how], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows, peak = json.loads(done.stdout)
    assert rows == {"few": FEW, "many": MANY}[name]
    return peak


def test_ten_times_the_rows_in_one_file_take_no_more_memory(inputs: Path) -> None:
    few, many = _peak_mb(inputs, "few"), _peak_mb(inputs, "many")
    assert many - few < MOST_GROWTH_MB
    # And the test would notice: a file that is held whole.
    assert _peak_mb(inputs, "many", "whole files in memory") - few > MOST_GROWTH_MB
