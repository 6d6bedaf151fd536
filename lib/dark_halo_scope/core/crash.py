"""Crash points: places where a test kills the process to prove that nothing is ever half written.

`DHS_CRASH_AT=after_fsync` kills at the first such point, `DHS_CRASH_AT=after_fsync:stamps.json` at that file's.
"""

import os
import signal

VARIABLE = "DHS_CRASH_AT"

# In the order in which publishing an artifact passes them.
ATOMIC_POINTS = ("before_write", "after_write", "after_fsync", "after_rename", "after_directory_fsync")
ATTEMPT_POINTS = (
    "prefix_made",
    "data_complete",
    "objects_written",
    "data_settled",
    "provenance_written",
    "manifest_written",
)


def crash_point(point: str, name: str = "") -> None:
    """Kill this process as `kill -9` would, if the environment asks for it here."""
    wanted = os.environ.get(VARIABLE)
    if wanted is not None and wanted in (point, f"{point}:{name}"):
        os.kill(os.getpid(), signal.SIGKILL)
