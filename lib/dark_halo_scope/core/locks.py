"""Locks that die with their owner: flock on a file that says who holds it."""

import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dark_halo_scope.core.errors import LockHeldError
from dark_halo_scope.core.files import explained, make_directory
from dark_halo_scope.core.redaction import redact


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, as the holder wrote it."""

    pid: int
    host: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}, since {self.since})"


def _self() -> Owner:
    command = redact(" ".join([os.path.basename(sys.argv[0]) or "python", *sys.argv[1:]]))[:200]
    return Owner(os.getpid(), socket.gethostname(), command, datetime.now(UTC).isoformat(timespec="seconds"))


def _read_owner(path: Path) -> Owner:
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        # It was locked a moment ago and its owner has not signed yet.
        return Owner(0, "unknown host", "unknown command", "just now")


@dataclass
class HeldLock:
    """A lock that this process holds until `release` or its own end, whatever that end is."""

    path: Path
    handle: int

    def release(self) -> None:
        """Give the lock up. The file goes first, so that it never exists without meaning."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.handle)


def acquire(path: Path) -> HeldLock:
    """Take the lock file `path` without waiting.

    Raises:
        LockHeldError: another live process holds it; the sentence names that process and its host.
        StorageError: the lock file cannot be written.
    """
    path = Path(path)
    make_directory(path.parent)
    while True:
        with explained(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise LockHeldError(
                f"{path} is held by {_read_owner(path)}: wait for it, or stop it, and then try again."
            ) from None
        # The previous holder may have removed the file between open and flock: then this lock guards nothing.
        try:
            current = os.stat(path).st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            current = False
        if current:
            break
        os.close(handle)
    with explained(path):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(_self())).encode(), 0)
    return HeldLock(path, handle)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    Raises:
        LockHeldError: another live process holds it; the sentence names that process and its host.
    """
    held = acquire(path)
    try:
        yield
    finally:
        held.release()


def live_owner(path: Path) -> Owner | None:
    """Who holds the lock file `path` now; None where nobody does, even if a killed owner left the file behind."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_owner(path)
    finally:
        os.close(handle)
    return None


def lock_path(artifact: Path) -> Path:
    """The lock file of an artifact: hidden, beside it."""
    return artifact.parent / f".{artifact.name}.lock"
