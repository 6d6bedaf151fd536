"""Progress of long loops: a bar on a terminal, a plain line every ten seconds in a log file."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

INTERVAL_S = 10.0

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class Progress:
    """Counts steps of one task and shows how far it is; a context manager."""

    def __init__(
        self,
        total: int | None,
        description: str,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.description = description
        self.done = 0
        self._interval_s = interval_s
        self._clock = clock
        self._start = self._last = clock()
        self._bar: RichProgress | None = None
        if sys.stderr.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=False,
            )
            self._task = self._bar.add_task(description, total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def advance(self, n: int = 1) -> None:
        """Count `n` more steps."""
        self.done += n
        if self._bar is not None:
            # Without the context manager, the first step starts the bar.
            if not self._bar.live.is_started:
                self._bar.start()
            self._bar.advance(self._task, n)
            return
        now = self._clock()
        if now - self._last >= self._interval_s:
            self._last = now
            self._line(now)

    def close(self) -> None:
        """Leave the finished bar, or a last line."""
        if self._bar is not None:
            self._bar.stop()
        else:
            self._line(self._clock())

    def _line(self, now: float) -> None:
        elapsed = max(now - self._start, 1e-9)
        rate = self.done / elapsed
        share = f"/{self.total} ({self.done / self.total:.0%})" if self.total else ""
        left = f", {(self.total - self.done) / rate:.0f} s left" if self.total and 0 < self.done < self.total else ""
        _logger.info("%s: %d%s, %.3g/s, %.0f s%s", self.description, self.done, share, rate, elapsed, left)


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield from `iterable` and show progress; its length is the total unless `total` is given."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(total, description) as progress:
        for item in iterable:
            yield item
            progress.advance()
