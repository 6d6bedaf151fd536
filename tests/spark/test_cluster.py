"""A real cluster gives the bytes of a local run: with Spark 3.5 and 4, any partitions, a worker killed on the way."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkouts import Checkout
from dark_halo_scope.core.manifest import load_manifest
from spark_cluster import JAVA_OPTIONS, SparkCluster, children, pyspark_home, spark_cluster

# What Spark rules make in the main job, in the order of the DAG.
ARTIFACTS = [
    "results/catalogue/parent.json",
    "results/datasets/v5_cosmos_paired/manifest.json",
    "results/datasets/v5_cosmos_paired/stamps.json",
]

DEFAULTS: dict[str, dict[str, str]] = {
    "4": {},
    # Another number of partitions than either version's own, most of them empty.
    "3.5": {"spark.sql.shuffle.partitions": "13", "spark.sql.adaptive.enabled": "false"},
}


@dataclass(frozen=True)
class Call:
    """One call of a rule's command line in `folder`, and the artifact that it has made there."""

    folder: Path
    module: str
    arguments: tuple[str, ...]
    artifact: Path


def call_of(checkout: Checkout, artifact: str, **inputs: str) -> Call:
    """What made an artifact of a checkout, with the same settings and inputs.

    Args:
        inputs: by option, in place of those that it was made from.
    """
    made = json.loads((checkout.path / artifact).with_suffix(".provenance.json").read_text())
    # Options are called as what they take.
    options = {Path(item["path"]).stem: item["path"] for item in made["inputs"]} | inputs
    options["settings"] = json.dumps(made["settings"])
    arguments = tuple(part for name, value in options.items() for part in (f"--{name}", value))
    return Call(checkout.path, made["module"], arguments, checkout.path / artifact)


@dataclass(frozen=True)
class Spark:
    """A cluster, and the environment of a driver of the same version."""

    cluster: SparkCluster
    environment: dict[str, str]

    def start(self, call: Call, output: Path) -> subprocess.Popen[str]:
        """Submit a call as Snakemake does."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "dark_halo_scope.spark.submit", "--backend", self.cluster.address),
                *(call.module, "--", *call.arguments, "--output", str(output)),
            ],
            cwd=call.folder,
            env=os.environ | self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, call: Call, output: Path) -> tuple[int, str]:
        """`start`, to its end: status and what it said."""
        process = self.start(call, output)
        _, said = process.communicate(timeout=500)
        return process.returncode, said


@pytest.fixture(scope="module", params=list(DEFAULTS))
def spark(
    request: pytest.FixtureRequest,
    project_root: Path,
    finished: Checkout,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Spark]:
    """A master and two workers of each version of Spark."""
    folder = tmp_path_factory.mktemp("spark")
    python_path = [str(finished.path / "lib")]
    if request.param == "3.5":
        if not (project_root / ".spark35" / "pyspark").is_dir():
            pytest.skip("Spark 3.5 is absent: `make setup` puts it into .spark35")
        python_path.insert(0, str(project_root / ".spark35"))
    defaults = {"spark.executor.extraJavaOptions": JAVA_OPTIONS} | DEFAULTS[request.param]
    lines = [f"{name} {value}\n" for name, value in defaults.items()]
    (folder / "spark-defaults.conf").write_text("".join(lines))
    environment = {"SPARK_CONF_DIR": str(folder), "PYTHONPATH": os.pathsep.join(python_path)}
    with spark_cluster(folder / "cluster", pyspark_home(environment["PYTHONPATH"])) as cluster:
        assert cluster.version.startswith(f"{request.param}.")
        yield Spark(cluster, environment)


def same_on_the_cluster(spark: Spark, call: Call, output: Path) -> None:
    """A call gives there what it gave here: two manifests say the same, checksums of all files included."""
    before = len(spark.cluster.work_folders())
    status, said = spark.run(call, output)
    assert status == 0, said
    assert f"Spark {spark.cluster.version}, {spark.cluster.address}" in said
    assert len(spark.cluster.work_folders()) == before + 2, "both workers take part"
    same_data(output, call.artifact)


def same_data(output: Path, artifact: Path) -> None:
    """Two manifests say the same of data in two places."""
    ours, theirs = (load_manifest(path).model_dump(exclude={"uri"}) for path in (output, artifact))
    assert ours == theirs


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_a_rule_writes_the_same_bytes_on_a_cluster_as_here(
    spark: Spark, artifact: str, finished: Checkout, tmp_path: Path
) -> None:
    """Relative paths of manifests hold although executors start in folders of their own."""
    same_on_the_cluster(spark, call_of(finished, artifact), tmp_path / "out.json")


# The last of its cluster, which it leaves with one worker.
@pytest.mark.parametrize("spark", ["4"], indirect=True)
def test_a_worker_killed_in_the_middle_changes_nothing(spark: Spark, finished: Checkout, tmp_path: Path) -> None:
    call = call_of(finished, ARTIFACTS[2])
    process = spark.start(call, tmp_path / "out.json")
    deadline = time.monotonic() + 300
    # Its executor has started Python: a task runs there.
    while not any(children(pid) for pid in spark.cluster.executors(1)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    spark.cluster.kill_worker(1)
    assert process.poll() is None
    assert not list(tmp_path.rglob("stamps-*.parquet")), "killed too late to be in the middle"
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    same_data(tmp_path / "out.json", call.artifact)


@pytest.mark.parametrize("spark", ["3.5"], indirect=True)
def test_what_a_task_says_reaches_the_user(spark: Spark, finished: Checkout, tmp_path: Path) -> None:
    """One flipped byte in a parent file is found by the task that reads it, and named by the command line."""
    parent = load_manifest(finished.path / ARTIFACTS[0])
    data = tmp_path / "parent"
    shutil.copytree(finished.path / parent.uri, data)
    damaged = min(data.glob("parent-*.parquet"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    (tmp_path / "parent.json").write_text(parent.model_copy(update={"uri": str(data)}).model_dump_json())
    call = call_of(finished, ARTIFACTS[1], parent=str(tmp_path / "parent.json"))
    status, said = spark.run(call, tmp_path / "out.json")
    assert status == 1
    assert said.strip().splitlines()[-1].startswith(f"error: {damaged} does not match the checksum")
    assert not (tmp_path / "out.json").exists()
