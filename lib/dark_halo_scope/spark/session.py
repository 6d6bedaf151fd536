"""A Spark session that behaves the same on a laptop, a cluster and EMR, with Spark 3.5 and 4.x."""

import argparse
import contextlib
import logging
import os
import re
import socket
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.storage import DIRECTORY_VARIABLE
from dark_halo_scope.spark.failures import executors_awaited, explained

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What spark-submit on the cluster decides, so that nothing here overrides it.
INHERITED = "inherited"

_LIB = Path(__file__).resolve().parents[2]
_LOG_SETTINGS = Path(__file__).resolve().with_name("log4j2.properties")
# Below the 1.5 GB that one task may take in all, with its Python worker beside the JVM.
_JVM_MEMORY_PER_TASK_MB = 768
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--spark-master`."""
    parser.add_argument(
        "--spark-master",
        default="local[*]",
        help=f"local[N], spark://host:port, or `{INHERITED}` inside spark-submit (default: local[*], all cores)",
    )


def local_cores(master: str) -> int | None:
    """Number of tasks at a time of a local master; None for a cluster.

    `local[*]` means the cores that this process may use, which a container or batch system may have cut down.
    """
    match = re.fullmatch(r"local(?:\[(\*|[1-9][0-9]*)\])?", master)
    if match is None:
        return None
    if match[1] == "*":
        return len(os.sched_getaffinity(0))
    return int(match[1] or 1)


def _own_address(master: str) -> str:
    """The address under which the master's machine sees this one."""
    host, port = urlsplit(master).hostname or "", urlsplit(master).port or 7077
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # UDP: chooses a route and sends nothing
        return str(probe.getsockname()[0])
    raise BadInputError(f"The host of the Spark master {master} cannot be found; correct --spark-master.")


def session_settings(master: str) -> dict[str, str]:
    """Spark's settings for a master.

    Raises:
        BadInputError: the master is neither local, `spark://host:port` nor inherited, or its host is unknown.
    """
    settings = {
        "spark.sql.session.timeZone": "UTC",
        # The default of Spark 4 and not of 3.5: a bad cast or an overflow is an error, never a null.
        "spark.sql.ansi.enabled": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
        # One thread a task: sums come out the same whatever the number of cores.
        **{f"spark.executorEnv.{name}": "1" for name in _THREAD_VARIABLES},
    }
    if master == INHERITED:
        return settings
    cores = local_cores(master)
    settings |= {
        # Manifests name their data relative to this folder. Executors start in folders of their own, and a JVM stays in
        # the one that it was started in.
        f"spark.executorEnv.{DIRECTORY_VARIABLE}": os.getcwd(),
        "spark.ui.enabled": "false",
        "spark.master": master,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={_LOG_SETTINGS.as_uri()}",
    }
    if cores is not None:
        return settings | {
            "spark.master": f"local[{cores}]",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": f"{max(1024, _JVM_MEMORY_PER_TASK_MB * cores)}m",
            "spark.sql.shuffle.partitions": str(max(2, 2 * cores)),
            "spark.executorEnv.PYTHONPATH": os.pathsep.join(
                filter(None, [str(_LIB), os.environ.get("PYTHONPATH", "")])
            ),
        }
    if not master.startswith("spark://"):
        raise BadInputError(f"{master!r} is no Spark master; give local[N], spark://host:port or {INHERITED}.")
    address = _own_address(master)
    return settings | {
        "spark.driver.host": address,
        "spark.driver.bindAddress": address,
        "spark.executor.memory": os.environ.get("SPARK_EXECUTOR_MEMORY", "1g"),
    }


def package_zip(directory: Path) -> Path:
    """The package as a zip that Python imports from, for executors; equal code gives equal bytes."""
    path = directory / "dark_halo_scope.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        sources = (path for path in (_LIB / "dark_halo_scope").rglob("*") if path.is_file() and path.suffix != ".pyc")
        for source in sorted(sources):
            # A fixed time: the default would be the file's.
            entry = zipfile.ZipInfo(source.relative_to(_LIB).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, source.read_bytes())
    return path


@contextlib.contextmanager
def spark_session(master: str, name: str) -> Iterator["SparkSession"]:
    """A Spark session, stopped when the block ends.

    Inside a block that already has a session of the same master, that one is used and left running.

    Raises:
        BadInputError: the master is not one, or a session of another master runs in this process.
        DarkHaloScopeError: of the class and with the sentence that a task of the block raised.
        SparkError: executors died or never came.
    """
    from pyspark.sql import SparkSession

    settings = session_settings(master)
    active = SparkSession.getActiveSession()
    if active is not None:
        wanted = settings.get("spark.master", active.sparkContext.master)
        if active.sparkContext.master != wanted:
            raise BadInputError(
                f"A Spark session of {active.sparkContext.master} runs in this process, and {wanted} is asked for; "
                "stop the one before."
            )
        with explained():
            yield active
        return
    # The interpreter that runs this, not whichever `python3` comes first on a worker's path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if local_cores(master) is not None:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName(name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    try:
        spark.sparkContext.setLogLevel("ERROR")
        with tempfile.TemporaryDirectory(prefix="dark_halo_scope-") as directory:
            if local_cores(master) is None and master != INHERITED:
                spark.sparkContext.addPyFile(str(package_zip(Path(directory))))
            _logger.info("Spark %s, %s, %s", spark.version, spark.sparkContext.master, name)
            awaited = executors_awaited(spark) if master.startswith("spark://") else contextlib.nullcontext()
            with explained(), awaited:
                yield spark
    finally:
        spark.stop()
