"""One command runs a module here, on a real cluster, or on EMR."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.spark.submit import main, spark_master
from spark_cluster import spark_cluster

LIB = Path(__file__).resolve().parents[2] / "lib"

# A module of the package, in a package of its own beside it: what executors import must have travelled to them.
JOB = '''
"""Writes which hosts, processes and code answered."""
import argparse, json
from pathlib import Path
from dark_halo_scope.spark.session import add_arguments, spark_session

def task(number):
    import os
    import dark_halo_scope.core.files as files
    return number, os.getpid(), files.__file__

def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    add_arguments(parser)
    options = parser.parse_args(argv)
    with spark_session(options.spark_master, "tiny") as spark:
        rows = spark.sparkContext.parallelize(range(4), 2).map(task).collect()
        options.output.write_text(json.dumps({"master": spark.sparkContext.master, "rows": rows}))
'''


@pytest.mark.parametrize(
    ("backend", "master"),
    [("local", "local[*]"), ("local[2]", "local[2]"), ("spark://127.0.0.1:7077", "spark://127.0.0.1:7077")],
)
def test_a_backend_is_a_master(backend, master):
    assert spark_master(backend) == master


@pytest.mark.parametrize("backend", ["locl", "yarn", "local[]", ""])
def test_another_backend_is_refused(backend):
    with pytest.raises(BadInputError, match="no Spark backend"):
        spark_master(backend)


def test_a_module_that_is_not_ours_or_not_there_is_refused():
    with pytest.raises(BadInputError, match="os is not a module of this package"):
        main(["--backend", "local", "os"])
    with pytest.raises(BadInputError, match="cannot be imported"):
        main(["--backend", "local", "dark_halo_scope.spark.nothing"])


def test_emr_without_its_settings_is_refused(monkeypatch):
    monkeypatch.delenv("DHS_EMR_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="--emr-config or set DHS_EMR_CONFIG"):
        main(["--backend", "emr", "dark_halo_scope.core.resume", "--", "--output", "x.json"])


def test_emr_settings_that_are_wrong_are_refused_by_name():
    bad = json.dumps({"scratch": "/local", "data_root": "s3://b", "log_uri": "s3://b", "presett": "test"})
    with pytest.raises(ConfigError, match=r"--emr-config is not valid.*scratch.*presett"):
        main(["--backend", "emr", "--emr-config", bad, "dark_halo_scope.core.resume", "--", "--output", "x.json"])


def run_submit(backend: str, checkout: Path) -> dict:
    """Submit JOB as a module of a copy of the package."""
    output = checkout / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dark_halo_scope.spark.submit", "--backend", backend),
            *("dark_halo_scope.spark.tiny", "--", "--output", str(output)),
        ],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "lib")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of core and spark with one more module."""
    for package in ("", "core", "spark"):
        source, target = LIB / "dark_halo_scope" / package, tmp_path / "lib" / "dark_halo_scope" / package
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.is_file():
                (target / path.name).write_bytes(path.read_bytes())
    (tmp_path / "lib/dark_halo_scope/spark/tiny.py").write_text(JOB)
    return tmp_path


def test_a_module_runs_here(checkout):
    result = run_submit("local[1]", checkout)
    assert result["master"] == "local[1]"
    assert [row[0] for row in result["rows"]] == [0, 1, 2, 3]


def test_a_module_runs_on_a_cluster_whose_workers_have_only_what_was_shipped(checkout, tmp_path):
    with spark_cluster(tmp_path / "cluster", workers=1) as cluster:
        result = run_submit(cluster.address, checkout)
    assert result["master"] == cluster.address
    assert [row[0] for row in result["rows"]] == [0, 1, 2, 3]
    assert all("dark_halo_scope.zip" in row[2] for row in result["rows"])
