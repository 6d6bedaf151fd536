"""Dry runs without the seconds that importing Snakemake takes: each is a fork of a process that has imported it."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["snakemake.cli"])


def dry_run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """What `snakemake` with these arguments says and how it ends, as `subprocess.run` would have it.

    For runs that start no job: the child shares its parent's modules, and it has none of this project's.
    """
    with tempfile.TemporaryDirectory() as said:
        out, err = Path(said, "stdout"), Path(said, "stderr")
        child = _context.Process(target=_run, args=(list(arguments), folder, dict(environment), out, err))
        child.start()
        child.join(timeout)
        if child.is_alive():
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(["snakemake", *arguments], timeout, out.read_text(), err.read_text())
        assert child.exitcode is not None
        return subprocess.CompletedProcess(["snakemake", *arguments], child.exitcode, out.read_text(), err.read_text())


def _run(arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main(arguments)
