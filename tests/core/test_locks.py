"""A lock belongs to one live process, and to nobody once that has ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import LockHeldError
from dark_halo_scope.core.locks import acquire, live_owner, lock, lock_path

LIB = Path(__file__).resolve().parents[2] / "lib"
HOLD = """
import sys, time
from pathlib import Path
from dark_halo_scope.core.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path/x.lock`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")],
        env={**os.environ, "PYTHONPATH": str(LIB)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_that_another_process_holds_is_refused_and_names_that_process(tmp_path, holder):
    with (
        pytest.raises(LockHeldError, match=rf"process {holder.pid} on {os.uname().nodename}"),
        lock(tmp_path / "x.lock"),
    ):
        pytest.fail("the lock was given twice")


def test_the_live_owner_is_known(tmp_path, holder):
    owner = live_owner(tmp_path / "x.lock")
    assert owner is not None
    assert owner.pid == holder.pid
    assert owner.host == os.uname().nodename


def test_a_killed_owner_holds_nothing_though_its_file_remains(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "x.lock").exists()
    assert live_owner(tmp_path / "x.lock") is None
    with lock(tmp_path / "x.lock"):
        assert live_owner(tmp_path / "x.lock") is not None


def test_a_released_lock_leaves_no_file(tmp_path):
    with lock(tmp_path / "x.lock"):
        assert (tmp_path / "x.lock").exists()
    assert not (tmp_path / "x.lock").exists()
    assert live_owner(tmp_path / "x.lock") is None


def test_an_error_in_the_block_releases_the_lock(tmp_path):
    with pytest.raises(RuntimeError), lock(tmp_path / "x.lock"):
        raise RuntimeError
    with lock(tmp_path / "x.lock"):
        pass


def test_one_process_does_not_get_the_same_lock_twice(tmp_path):
    held = acquire(tmp_path / "x.lock")
    with pytest.raises(LockHeldError, match=str(os.getpid())):
        acquire(tmp_path / "x.lock")
    held.release()


def test_a_child_that_another_program_becomes_does_not_keep_the_lock(tmp_path):
    held = acquire(tmp_path / "x.lock")
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    held.release()
    try:
        acquire(tmp_path / "x.lock").release()
    finally:
        child.kill()
        child.wait()


def test_of_many_at_once_exactly_one_holds_the_lock_at_any_time(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(LIB)!r})
from pathlib import Path
from dark_halo_scope.core.errors import LockHeldError
from dark_halo_scope.core.locks import lock
path, mark, got = Path({str(tmp_path / "x.lock")!r}), Path({str(tmp_path / "inside")!r}), 0
while got < 100:
    try:
        with lock(path):
            mark.touch(exist_ok=False)
            mark.unlink()
            got += 1
    except LockHeldError:
        pass
"""
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    deadline = time.monotonic() + 60
    for child in children:
        _, errors = child.communicate(timeout=max(1, deadline - time.monotonic()))
        assert child.returncode == 0, errors.decode()


def test_the_lock_of_an_artifact_is_hidden_beside_it():
    assert lock_path(Path("results/x/stamps.json")) == Path("results/x/.stamps.json.lock")
