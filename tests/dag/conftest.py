"""One finished run of the tiny survey for all tests of this folder."""

from pathlib import Path

import pytest
from checkouts import MAIN_JOB, Checkout, make_checkout


@pytest.fixture(scope="session")
def finished(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the main job has been run on the tiny survey."""
    checkout = make_checkout(project_root, tmp_path_factory.mktemp("dag") / "checkout")
    run = checkout.snakemake(MAIN_JOB)
    assert run.returncode == 0, run.stderr[-6000:]
    return checkout
