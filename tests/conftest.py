"""Fixtures that every test package shares."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from checkouts import MAIN_JOB, Checkout, make_checkout
from spark_cluster import JAVA_OPTIONS

# No deadline: on a busy machine an example may take seconds for nothing that it did.
settings.register_profile("dark_halo_scope", deadline=None)
settings.load_profile("dark_halo_scope")

# Spark's JVMs live for seconds here: only the fast compiler and one collector thread halve what they take of the CPU.
os.environ.setdefault("SPARK_SUBMIT_OPTS", JAVA_OPTIONS)

# cuBLAS reads this when a process first multiplies on a GPU, which may be before a test of deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The end-to-end run first: one worker makes the finished checkout while the other has tests that need none."""
    items.sort(key=lambda item: item.path.parent.name != "end_to_end")


def _existing(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what} is absent: {path} (set DHS_REAL_DATA to the folder of real survey files)")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real survey files: $DHS_REAL_DATA, else ../shared/real beside the checkout."""
    return _existing(Path(os.environ.get("DHS_REAL_DATA", ROOT.parent / "shared" / "real")), "real survey data")


@pytest.fixture(scope="session")
def reference_data(real_data: Path) -> Path:
    """Folder of independent physics values, beside the real survey files."""
    return _existing(real_data.parent / "reference", "reference physics values")


@pytest.fixture
def in_fork() -> Callable[[Callable[[], None]], int]:
    """Run a function in a forked child and return how that ended: an exit status, or minus a signal."""

    def run(function: Callable[[], None]) -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


@pytest.fixture(scope="session")
def finished(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the main job has been run on the tiny survey; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return Checkout(folder / "checkout")
        checkout = make_checkout(project_root, folder / "checkout")
        run = checkout.snakemake(MAIN_JOB)
        assert run.returncode == 0, run.stderr[-6000:]
        (folder / "done").touch()
        return checkout
