"""What `inject_stamps` promises as a job: the same bytes however it is run, no row lost, no damaged pixel used."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import SIDE, brick_wcs, planes, row, write_brick
from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import Manifest, Target, attempt, load_manifest, verified_paths
from dark_halo_scope.injection import measure_sources, stamp_files
from dark_halo_scope.injection.manifest import MANIFEST_SCHEMA
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import Job, inject_file
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings
from dark_halo_scope.survey.description import load_survey
from source_banks import gaussian, write_galsim_bank, write_sources

BRICKS = ("0001p000", "0003p000", "0006p000")
MISSING = "0008p000"
COADDS = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.5, attempts=1)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """survey.json, manifest.json and coadds.json of three bricks, one of them with a target off its edge, and a brick
    that is missing."""
    monkeypatch.chdir(tmp_path)
    for number, brick in enumerate(BRICKS):
        write_brick(tmp_path / "coadds", planes(seed=number), brick)
    files = {name: "none" for name in ("bricks", "brick_summary", "sweeps", "photoz", "sources")}
    with attempt(Path("survey.json"), "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
        work.publish(facts=facts | {"files": files | {"coadds": str(tmp_path / "coadds"), "lenses": []}})
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        x, y = rng.uniform(40, SIDE - 40, 2) if number else (10.0, 150.0)
        rows.append(row(x, y, number=number, brickname=(*BRICKS, MISSING)[number % 4]))
    with attempt(Path("manifest.json"), "manifest", "dark_halo_scope.injection.manifest", {}, []) as work:
        for part, split in ((0, "train"), (1, "train"), (2, "test")):
            here = [one for one in rows if int(one["task_id"], 16) % 3 == part]
            table = pa.Table.from_pylist(here, schema=MANIFEST_SCHEMA)
            pq.write_table(table, work.prefix / f"manifest-{split}-{part:04d}.parquet")
        work.publish(rows_out=24, facts={"settings": {"replicates": {"train": 1, "val": 1, "test": 1}}})
    write_sources(Path("sources.json"), [1])
    cache_coadds(Path("survey.json"), Path("manifest.json"), Path("coadds.json"), COADDS, tmp_path / "cache", 1)
    return tmp_path


def _inject(folder: Path, output: str, master: str, **environment: str) -> Manifest:
    """What the command line makes in a process of its own, as a user runs it."""
    done = _run(folder, output, master, **environment)
    assert done.returncode == 0, done.stderr
    return load_manifest(folder / output, "stamps")


def _run(folder: Path, output: str, master: str, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--survey", "survey.json", "--manifest", "manifest.json", "--coadds", "coadds.json"]
    arguments += ["--sources", "sources.json"]
    settings = ["--settings", json.dumps({"rows_per_file": 5}), "--spark-master", master, "--output", output]
    library = str(Path(__file__).resolve().parents[2] / "lib")
    return subprocess.run(
        [sys.executable, "-m", "dark_halo_scope.injection.stamps", *arguments, *settings],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": library, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_whose_worker_was_killed_goes_on_where_it_was_and_ends_as_a_clean_one(inputs: Path) -> None:
    clean = _inject(inputs, "clean.json", "local[1]")
    killed = _run(inputs, "stamps.json", "local[1]", DHS_CRASH_AT="after_write:stamps-train-0001-001.parquet")
    assert killed.returncode != 0
    (left,) = (inputs / "stamps").iterdir()
    before = {path.name: path.stat().st_ino for path in left.glob("stamps-*.parquet")}
    names = [path.name for path in verified_paths(clean)]
    assert sorted(before) == [name for name in names if name != "stamps-train-0001-001.parquet"], "only it is missing"
    done = _inject(inputs, "stamps.json", "local[1]")
    assert done.model_dump(exclude={"uri"}) == clean.model_dump(exclude={"uri"})
    after = {path.name: path.stat().st_ino for path in verified_paths(done)}
    assert before.items() < after.items(), "they were written again"
    assert [path.name for path in (inputs / "stamps").iterdir()] == [Path(done.uri).name]


def test_cores_and_hash_seeds_change_no_byte_and_no_row_is_lost(inputs: Path) -> None:
    one = _inject(inputs, "one.json", "local[1]", PYTHONHASHSEED="1")
    two = _inject(inputs, "two.json", "local[2]", PYTHONHASHSEED="2")
    assert one.sha256 == two.sha256
    assert (one.rows_in, one.rows_out, one.rows_quarantined) == (24, 24, 0)
    assert one.facts["cutout_failed"] == {"coadds missing": 6, "off the edge of the brick": 1}
    assert one.facts["splits"] == {"test": 8, "train": 16}
    tables = [pq.read_table(path) for path in verified_paths(one)]
    for table in tables:
        bricks = table["brickname"].to_pylist()
        assert bricks == sorted(bricks)
    together = pa.concat_tables(tables)
    assert sorted(together["task_id"].to_pylist()) == [f"{number:064x}" for number in range(24)]
    assert sum(value is not None for value in together["stamp_npz"].to_pylist()) == 17


def _job(folder: Path) -> Job:
    manifest, coadds = load_manifest(folder / "manifest.json"), load_manifest(folder / "coadds.json")
    survey, sources = load_survey(folder / "survey.json"), load_manifest(folder / "sources.json")
    return Job(manifest, coadds, survey, StampSettings(), Target(tempfile.mkdtemp(dir=folder)), sources)


def test_one_flipped_byte_in_a_coadd_is_an_error_that_names_the_file(inputs: Path) -> None:
    path = inputs / "coadds" / BRICKS[1] / f"legacysurvey-{BRICKS[1]}-invvar-r.fits.fz"
    data = bytearray(path.read_bytes())
    data[-4000] ^= 4
    path.write_bytes(data)
    written = inject_file("manifest-train-0000.parquet", _job(inputs))
    assert isinstance(written[-1].error, CorruptDataError)
    assert path.name in str(written[-1].error)


def test_a_source_bank_that_changed_since_it_was_measured_is_an_error_that_names_the_file(inputs: Path) -> None:
    bank = write_galsim_bank(inputs / "bank", [gaussian(81, 5.0)])
    survey = read_json(inputs / "survey.json")
    survey["facts"]["files"]["sources"] = str(bank)
    write_json(inputs / "survey.json", survey)
    measure_sources.main(
        ["--survey", "survey.json", "--output", "sources.json", "--settings", "{}", "--processes", "1"]
    )
    with attempt(Path("manifest.json"), "manifest", "dark_halo_scope.injection.manifest", {}, []) as work:
        lensed = row(150, 150, brickname=BRICKS[0], source_mode="image", source_id="100")
        pq.write_table(pa.Table.from_pylist([lensed], schema=MANIFEST_SCHEMA), work.prefix / "manifest-test-0.parquet")
        work.publish(rows_out=1, facts={"settings": {"replicates": {"train": 1, "val": 1, "test": 1}}})
    (written,) = inject_file("manifest-test-0.parquet", _job(inputs))
    assert (written.error, written.rows, written.reasons) == (None, 1, {})
    for changed in (inputs / "bank" / "images.fits", bank):
        content = changed.read_bytes()
        # One bit of the last pixels, or of the table's rows: still a bank, with the same names.
        changed.write_bytes(content[:-2880] + bytes([content[-2880] ^ 1]) + content[-2879:])
        stamp_files._bank_of.cache_clear()
        (written,) = inject_file("manifest-test-0.parquet", _job(inputs))
        assert isinstance(written.error, CorruptDataError)
        assert str(written.error) == (f"Source bank {changed} changed since sources.json; run measure_sources again.")
        changed.write_bytes(content)
    stamp_files._bank_of.cache_clear()
    (written,) = inject_file("manifest-test-0.parquet", _job(inputs))
    assert written.error is None


def test_a_file_lists_its_rows_and_failures(inputs: Path) -> None:
    job = _job(inputs)
    (written,) = inject_file("manifest-test-0002.parquet", job)
    assert written.error is None
    assert written.entry is not None
    assert written.entry.name == "stamps-test-0002-000.parquet"
    assert (written.split, written.rows) == ("test", 8)
    assert pq.read_table(Path(job.target.uri) / written.entry.name).num_rows == 8


def test_the_scene_has_the_surveys_orientation() -> None:
    ra, _ = brick_wcs().all_pix2world([100, 101], [150, 150], 0)
    assert ra[1] < ra[0]
