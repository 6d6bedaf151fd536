"""What goes wrong on Spark is said in one sentence, and nothing hangs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.spark import failures
from dark_halo_scope.spark.failures import SparkError
from dark_halo_scope.spark.session import spark_session
from spark_cluster import spark_cluster


@pytest.fixture(scope="module")
def spark():
    with spark_session("local[1]", "tests") as session:
        yield session


def raising():
    """A task that raises our own error; made here, since workers cannot import this file."""

    def task(_):
        raise CorruptDataError("x.fits has 3 of 5 bytes; fetch it again.")

    return task


def raising_from_another():
    """A task that says of one of our errors what it means here."""

    def task(_):
        try:
            raise CorruptDataError("x.fits has 3 of 5 bytes; fetch it again.")
        except CorruptDataError as error:
            raise BadInputError("Brick 0001m002 cannot be used; leave it out.") from error

    return task


def killed():
    """A task that the kernel kills, as it does when memory runs out."""

    def task(_):
        os.kill(os.getpid(), signal.SIGKILL)

    return task


def run_rdd(spark, task):
    spark.sparkContext.parallelize([1], 1).map(task).collect()


def run_arrow(spark, task):
    spark.range(1).mapInArrow(lambda batches: map(task, batches), "id long").collect()


def run_pandas(spark, task):
    spark.range(1).groupBy("id").applyInPandas(task, "id long").collect()


@pytest.mark.parametrize("run", [run_rdd, run_arrow, run_pandas])
def test_what_a_task_raises_is_raised_here_by_the_session(spark, run):
    with (
        pytest.raises(CorruptDataError, match=r"^x\.fits has 3 of 5 bytes; fetch it again\.$"),
        spark_session("local[1]", "x"),
    ):
        run(spark, raising())


@pytest.mark.parametrize("run", [run_rdd, run_arrow, run_pandas])
def test_of_errors_that_caused_one_another_the_last_is_raised(spark, run):
    with (
        pytest.raises(BadInputError, match=r"^Brick 0001m002 cannot be used; leave it out\.$"),
        spark_session("local[1]", "x"),
    ):
        run(spark, raising_from_another())


@pytest.mark.parametrize("run", [run_rdd, run_pandas])
def test_a_task_that_is_killed_for_memory_is_said_to_be(spark, run):
    with pytest.raises(SparkError, match=r"out of memory; give executors more.*Task 0 in stage"), failures.explained():
        run(spark, killed())


def test_another_error_stays_what_it_is(spark):
    with pytest.raises(Exception, match="ZeroDivisionError") as caught, failures.explained():
        run_rdd(spark, lambda _: 1 // 0)
    assert not isinstance(caught.value, SparkError)


_WITHOUT_PATIENCE = """
import sys
from dark_halo_scope.core.cli import run
from dark_halo_scope.spark import failures, session

failures.PATIENCE_S = 4.0

def main(_):
    with session.spark_session(sys.argv[1], "x") as spark:
        spark.range(3).count()

run(main)
"""


def test_a_cluster_without_workers_is_given_up(project_root: Path, tmp_path: Path) -> None:
    with spark_cluster(tmp_path / "cluster", workers=0) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_PATIENCE, cluster.address],
            env=os.environ | {"PYTHONPATH": str(project_root / "lib")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f"error: {cluster.address} has had no executor for 4 s; see that its workers run and have a free core and 1g "
        "of memory ($SPARK_EXECUTOR_MEMORY asks for another amount)."
    )
