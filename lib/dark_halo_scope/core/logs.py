"""Logging to stderr, without secrets."""

import logging
import sys
import traceback
from typing import TextIO

from dark_halo_scope.core.redaction import redact

# Libraries that narrate every request.
_CHATTY = ("boto3", "botocore", "s3transfer", "urllib3", "py4j", "numba", "matplotlib", "PIL", "fsspec", "h5py")


class RedactingFormatter(logging.Formatter):
    """A formatter whose lines, tracebacks included, hold no secret of the environment."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class StderrHandler(logging.StreamHandler):
    """Writes to what `sys.stderr` is at that moment, so that a progress bar can keep below the lines."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def configure(level: str = "INFO") -> None:
    """Send this process's log to stderr, one line per record."""
    handler = StderrHandler()
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def print_traceback(error: BaseException) -> None:
    """The traceback of `error` on stderr, without secrets."""
    print(redact("".join(traceback.format_exception(error)).rstrip()), file=sys.stderr)
