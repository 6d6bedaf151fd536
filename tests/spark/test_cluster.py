"""A real cluster gives the bytes of a local run: with Spark 3.5 and 4, any partitions, a worker killed on the way."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkouts import Checkout
from dark_halo_scope.core.manifest import load_manifest
from spark_cluster import VERSIONS, Spark, call_of, children, same_data, spark_of

# What Spark rules make in the main job, in the order of the DAG.
ARTIFACTS = [
    "results/catalogue/parent.json",
    "results/datasets/v5_cosmos_paired/manifest.json",
    "results/datasets/v5_cosmos_paired/stamps.json",
]


@pytest.fixture(scope="module", params=list(VERSIONS))
def spark(
    request: pytest.FixtureRequest,
    project_root: Path,
    finished: Checkout,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Spark]:
    """A master and two workers of each version of Spark."""
    with spark_of(request.param, finished.path / "lib", tmp_path_factory.mktemp("spark"), project_root) as spark:
        yield spark


@pytest.mark.parametrize(
    ("spark", "artifact"),
    [
        *(("3.5", artifact) for artifact in ARTIFACTS),
        # Everything else that tests make, they make with Spark 4.
        *(pytest.param("4", artifact, marks=pytest.mark.slow) for artifact in ARTIFACTS),
    ],
    indirect=["spark"],
)
def test_a_rule_writes_the_same_bytes_on_a_cluster_as_here(
    spark: Spark, artifact: str, finished: Checkout, tmp_path: Path
) -> None:
    """Relative paths of manifests hold although executors start in folders of their own."""
    spark.makes_the_same(call_of(finished, artifact), tmp_path / "out.json")


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


@pytest.mark.slow
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
