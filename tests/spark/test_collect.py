"""Work in pieces comes back in order, and ends at once when its process is told to."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import spark_session

_SLEEPING = """
import sys, time
from pathlib import Path
from dark_halo_scope.core.cli import run
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import spark_session

def main(_):
    def task(marker):
        Path(marker).touch()
        time.sleep(600)

    with spark_session("local[1]", "sleeps") as spark:
        try:
            collect(spark, sys.argv[1:], task, "Sleeping")
        finally:
            jobs = spark.sparkContext.statusTracker().getActiveJobsIds()
            print("jobs left:", list(jobs), flush=True)

run(main)
"""

# A job that nobody stopped would sleep for ten minutes.
_AT_ONCE_S = 60.0


def test_results_are_in_the_order_of_their_items():
    with spark_session("local[2]", "tests") as spark:
        assert collect(spark, [3, 1, 2], lambda number: 2 * number, "Doubling") == [6, 2, 4]


def test_imports_of_a_worker_are_out_of_the_garbage_collections_after_its_tasks():
    """PySpark's own collection after each task took longer than the task."""
    with spark_session("local[1]", "tests") as spark:
        first, *others = collect(spark, range(4), lambda _: gc.get_freeze_count(), "Counting")
    assert first == 0
    assert min(others) > 10_000


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_stopped_cancels_its_job_at_once(project_root: Path, tmp_path: Path, stop: signal.Signals):
    marker = tmp_path / "started"
    process = subprocess.Popen(
        [sys.executable, "-c", _SLEEPING, str(marker), str(tmp_path / "never")],
        env=os.environ | {"PYTHONPATH": str(project_root / "lib")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not marker.exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(stop)
        output, errors = process.communicate(timeout=_AT_ONCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + stop, errors
    assert "jobs left: []" in output
    assert not (tmp_path / "never").exists()
