"""Work that is cut into pieces beforehand, one Spark task each, with a bar that shows how far it is."""

import contextlib
import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from dark_halo_scope.core.progress import Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_POLL_S = 1.0


def collect(
    spark: "SparkSession",
    items: Sequence[ItemT],
    function: Callable[[ItemT], ResultT],
    label: str,
    per_task: int = 1,
) -> list[ResultT]:
    """`function` of every item, in order; results are small, data are written by the tasks themselves.

    Args:
        function: importable by name on a worker, or a `partial` of such a one.
        label: for the progress bar.
        per_task: items to a task. A task costs some 0.1 s however little it does; a failed one starts its items again.

    Whoever stops this process (SIGTERM, Ctrl-C) stops the job with it.
    """
    from py4j.protocol import Py4JError

    context = spark.sparkContext
    work: Any = context.parallelize(items, ceil(len(items) / per_task)).map(partial(_task, function))
    with ThreadPoolExecutor(1) as pool, Progress(len(items), label) as progress:
        running = pool.submit(work.collect)
        try:
            while not wait([running], _POLL_S).done:
                stages = [context.statusTracker().getStageInfo(i) for i in context.statusTracker().getActiveStageIds()]
                finished = sum(stage.numCompletedTasks for stage in stages if stage is not None)
                progress.advance(max(0, min(finished * per_task, len(items)) - progress.done))
        except BaseException:
            # The pool's end waits for its thread, and that for the job. Again and again: it may be about to start.
            while not running.done():
                with contextlib.suppress(Py4JError):
                    context.cancelAllJobs()
                wait([running], _POLL_S)
            raise
        results: list[ResultT] = running.result()
        progress.advance(len(items) - progress.done)
        return results


@cache
def _settle_worker() -> None:
    """Keep what this Python worker has imported out of garbage collections, from now on.

    PySpark collects garbage after every task, and with all imports in the heap that takes a tenth of a second: more
    than many a task.
    """
    gc.freeze()


def _task(function: Callable[[ItemT], ResultT], item: ItemT) -> ResultT:
    result = function(item)
    # After the first task: it has imported what there is to import.
    _settle_worker()
    return result
