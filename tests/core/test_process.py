"""A job dies with the scheduler that started it, however that dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dark_halo_scope.core.process import SCHEDULER_VARIABLE

LIB = Path(__file__).resolve().parents[2] / "lib"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(LIB)}
JOB = (
    "from dark_halo_scope.core.process import die_with_parent; die_with_parent(); "
    "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
)
SHELL_JOB = f"{sys.executable} -c '{JOB}'"


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.02)
    return False


def start_scheduler(command: list[str]) -> tuple[subprocess.Popen[str], int]:
    """A process that starts `command`, as Snakemake does, and the process id that the job prints."""
    code = f"import subprocess; subprocess.Popen({command!r}).wait()"
    scheduler = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert scheduler.stdout is not None
    job = int(scheduler.stdout.readline())
    scheduler.stdout.close()
    return scheduler, job


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-c", JOB], id="directly"),
        pytest.param(["bash", "-c", f"{SHELL_JOB}; true"], id="through a shell"),
        pytest.param(["bash", "-c", f"timeout 50 {SHELL_JOB}; true"], id="through a shell and timeout"),
    ],
)
def test_a_job_dies_when_its_scheduler_is_killed(command):
    scheduler, job = start_scheduler(command)
    assert is_alive(job)
    scheduler.send_signal(signal.SIGKILL)
    scheduler.wait()
    assert ends_within(job, 10)


def test_a_job_that_starts_after_its_scheduler_was_killed_dies_at_once():
    gone = subprocess.Popen(["true"])
    gone.wait()
    job = subprocess.run(
        [sys.executable, "-c", JOB],
        env={**ENVIRONMENT, SCHEDULER_VARIABLE: str(gone.pid)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert job.returncode == -signal.SIGKILL
    assert job.stdout == b""


def test_a_job_outlives_the_interactive_shell_that_it_was_started_from(tmp_path):
    shell = subprocess.Popen(
        ["bash", "--norc", "-i"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"nohup {SHELL_JOB} 2>/dev/null | cat &\n")
    shell.stdin.flush()
    job = int(shell.stdout.readline())
    try:
        shell.send_signal(signal.SIGKILL)
        shell.wait()
        assert not ends_within(job, 1)
    finally:
        os.kill(job, signal.SIGKILL)
        shell.stdin.close()
        shell.stdout.close()
