"""A child that dies with its parent, so that an orphan of a killed scheduler cannot touch outputs."""

import ctypes
import os
import select
import signal
import threading
from pathlib import Path

# A workflow sets it to its own process id: closes the gap in which a job starts after its scheduler was killed.
SCHEDULER_VARIABLE = "DHS_SCHEDULER_PID"

_PR_SET_PDEATHSIG = 1
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh"})
_WRAPPERS = frozenset({"timeout", "time", "sudo", "xargs"})


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        # The command name in parentheses may hold spaces and parentheses itself.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_interactive_shell(command: list[str]) -> bool:
    return (
        os.path.basename(command[0]).lstrip("-") in _SHELLS
        and all(part.startswith("-") for part in command[1:])
        and ("-c" not in command)
    )


def _is_wrapper(command: list[str]) -> bool:
    return os.path.basename(command[0]).lstrip("-") in _SHELLS | _WRAPPERS


def owners() -> list[int]:
    """Process ids whose death must end this process, the parent first.

    Shells and wrappers like `timeout` that run a command are followed up to who started them: a killed scheduler
    leaves its `bash -c` behind. An interactive shell is nobody's owner: `nohup ... &` outlives it on purpose.
    """
    found = []
    pid = os.getppid()
    while pid > 1:
        command = _command(pid)
        if not command or _is_interactive_shell(command):
            break
        found.append(pid)
        if not _is_wrapper(command):
            break
        pid = _parent(pid)
    return found


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        _kill_self()
    except OSError:  # a kernel without pidfd_open: the death signal of the direct parent remains
        return

    def wait() -> None:
        select.select([handle], [], [])
        _kill_self()

    threading.Thread(target=wait, name=f"dies-with-{pid}", daemon=True).start()


def die_with_parent() -> None:
    """Kill this process (SIGKILL) when the one that started it dies, however that happens.

    Linux only; elsewhere it does nothing.

    SIGKILL, because a scheduler that was killed may be restarted at once: an orphan that tidies up would race with it.
    """
    if not hasattr(os, "pidfd_open"):
        return
    parent = os.getppid()
    watched = owners()
    if parent in watched:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died between the two calls, and then no signal will ever come.
        if os.getppid() != parent:
            _kill_self()
    scheduler = os.environ.get(SCHEDULER_VARIABLE, "")
    if scheduler.isdecimal() and int(scheduler) not in (os.getpid(), parent):
        watched.append(int(scheduler))
    for pid in watched:
        if pid != parent:
            _watch(pid)
