"""Faults 23 and 24: a disk that is full, read-only or gone."""

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import StorageError
from dark_halo_scope.core.files import atomic_path, write_bytes
from dark_halo_scope.core.manifest import attempt

LIB = Path(__file__).resolve().parents[2] / "lib"
MODULE = "dark_halo_scope.core.resume"

WRITE = f"""
import sys
sys.path.insert(0, {str(LIB)!r})
from pathlib import Path
from dark_halo_scope.core.cli import run
from dark_halo_scope.core.manifest import attempt
def main(argv):
    with attempt(Path("results/x.json"), "x", {MODULE!r}, {{}}, [], data_root=sys.argv[1]) as work:
        (work.prefix / "big.npy").write_bytes(bytes(10_000_000))
        work.publish()
run(main)
"""


def test_a_file_beyond_the_limit_is_a_clear_error_and_the_old_one_stays(tmp_path, in_fork):
    path = tmp_path / "x.npy"
    path.write_bytes(b"old")

    def write_too_much() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(StorageError, match=r"x\.npy: the file would exceed the size limit"):
            write_bytes(path, bytes(1_000_000))

    assert in_fork(write_too_much) == 0
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.ESTALE, "has gone"),
        (errno.EIO, "input/output error"),
    ],
)
def test_each_refusal_of_a_disk_is_one_clear_sentence(tmp_path, number, says):
    path = tmp_path / "x.npy"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError, match=says):
        fail()
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.npy"]


def test_another_error_of_the_block_keeps_its_own_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"), atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(Path("no such input").read_bytes())


def _write_on(mount: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the writer where `scratch` is a file system of its own, seen by that process only."""
    (tmp_path / "scratch").mkdir()
    return subprocess.run(
        [
            *("unshare", "--map-root-user", "--mount", "bash", "-c", f'{mount} && exec "$@"', "bash"),
            *(sys.executable, "-c", WRITE, str(tmp_path / "scratch")),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def mounts() -> None:
    """Skip where a process may not mount for itself."""
    test = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        allowed = subprocess.run(test, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this system lets no process mount a file system of its own (unshare --mount)")


@pytest.mark.usefixtures("mounts")
def test_a_full_disk_is_one_clear_sentence_and_leaves_nothing_here(tmp_path):
    done = _write_on("mount -t tmpfs -o size=1m tmpfs scratch", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Cannot write ")
    assert "the disk is full; free some space" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.usefixtures("mounts")
def test_a_read_only_disk_fails_within_seconds(tmp_path):
    start = time.monotonic()
    done = _write_on("mount -t tmpfs -o ro tmpfs scratch", tmp_path)
    assert time.monotonic() - start < 20
    assert done.returncode == 1
    assert "the file system is read-only" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_place_that_is_gone_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").write_text("a file where the mount was")
    with (
        pytest.raises(StorageError, match="not a directory"),
        attempt(Path("x.json"), "x", MODULE, {}, [], data_root=str(tmp_path / "gone")),
    ):
        pytest.fail("it began")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone"]
