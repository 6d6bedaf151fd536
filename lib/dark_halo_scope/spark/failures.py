"""What goes wrong on Spark, as one sentence: what a task raised, executors that die, executors that never come."""

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dark_halo_scope.core import errors
from dark_halo_scope.core.errors import DarkHaloScopeError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A cluster whose machines all restart is back by then.
PATIENCE_S = 300.0
_POLL_S = 2.0

_RAISED = re.compile(r"^(?:.*\s)?dark_halo_scope\.core\.errors\.(\w+): (.+)$", re.MULTILINE)
_LOST = re.compile(
    r"ExecutorLostFailure|Python worker exited unexpectedly|Python worker failed to connect back|Master removed our "
    r"application|All masters are unresponsive"
)
_CAUSE = re.compile(r"Job aborted due to stage failure: ([^\n]{1,300})")


class SparkError(DarkHaloScopeError):
    """Spark lost its executors, or never had any."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise a task's own DarkHaloScopeError again in the driver, and say so where executors died.

    Raises:
        DarkHaloScopeError: of the class and with the sentence that the task raised.
        SparkError: tasks ended without a word: their executor or Python worker was killed, most often for memory.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        # The last: Python prints the cause before what was raised from it.
        found = max(_RAISED.finditer(text), key=re.Match.start, default=None)
        kind = getattr(errors, found[1], None) if found else None
        if found and isinstance(kind, type) and issubclass(kind, DarkHaloScopeError):
            raise kind(found[2].strip()) from error
        if _LOST.search(text):
            cause = _CAUSE.search(text)
            raise SparkError(
                "Spark gave up because the processes of its tasks died, as they do when they are out of memory; give "
                f"executors more memory or fewer cores. Spark says: {cause[1] if cause else text[:300]}"
            ) from error
        raise


def _executors(spark: "SparkSession") -> int:
    # The driver counts as one.
    return int(spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size()) - 1


@contextlib.contextmanager
def executors_awaited(spark: "SparkSession", patience_s: float | None = None) -> Iterator[None]:
    """Stop the block's jobs once a cluster has had no executor for `patience_s`: Spark itself would wait for ever.

    Args:
        spark: a session of a cluster.
        patience_s: seconds; PATIENCE_S if None.

    Raises:
        SparkError: there was no executor for so long.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    patience_s = PATIENCE_S if patience_s is None else patience_s
    ended, given_up = threading.Event(), threading.Event()

    def watch() -> None:
        missing_s = 0.0
        while not ended.wait(_POLL_S):
            missing_s = 0.0 if _executors(spark) else missing_s + _POLL_S
            if missing_s >= patience_s:
                given_up.set()
                # Again and again: the driver may be between two jobs.
                spark.sparkContext.cancelAllJobs()

    watcher = threading.Thread(target=watch, name="awaits-executors", daemon=True)
    watcher.start()
    try:
        yield
    except (PySparkException, Py4JError) as error:
        if not given_up.is_set():
            raise
        raise SparkError(
            f"{spark.sparkContext.master} has had no executor for {patience_s:.0f} s; see that its workers run and "
            f"have a free core and {spark.sparkContext.getConf().get('spark.executor.memory')} of memory "
            "($SPARK_EXECUTOR_MEMORY asks for another amount)."
        ) from error
    finally:
        ended.set()
        watcher.join()
