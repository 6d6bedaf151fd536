"""Fault 2: a kill at any point leaves the old artifact or the new one, and a rerun ends as a clean run."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from dark_halo_scope.core.clean_orphans import main as clean_orphans
from dark_halo_scope.core.crash import ATOMIC_POINTS, ATTEMPT_POINTS, VARIABLE
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_path, verify_manifest
from dark_halo_scope.core.verify_manifests import main as verify_manifests

MODULE = "dark_halo_scope.core.resume"
OUTPUT = Path("results/stamps.json")
FILES = ("_objects.json", "stamps.provenance.json", "stamps.json")
POINTS = [*ATTEMPT_POINTS, *(f"{point}:{name}" for name in FILES for point in ATOMIC_POINTS)]


def make(content: bytes) -> None:
    with attempt(OUTPUT, "stamps", MODULE, {"content": content.decode()}, []) as work:
        (work.prefix / "a.npy").write_bytes(content)
        work.publish()


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """Results of runs that nobody killed: of the old content in `old`, and of the new after the old in `new`."""
    root = tmp_path_factory.mktemp("clean")
    here = Path.cwd()
    try:
        os.chdir(root)
        make(b"old")
        shutil.copytree("results", "old")
        make(b"new")
        Path("results").rename("new")
    finally:
        os.chdir(here)
    return root


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_and_falsifies_nothing(clean, tmp_path, monkeypatch, in_fork, point):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clean / "old", "results")
    monkeypatch.setenv(VARIABLE, point)
    assert in_fork(lambda: make(b"new")) == -signal.SIGKILL
    monkeypatch.delenv(VARIABLE)

    manifest = load_manifest(OUTPUT)
    verify_manifest(manifest)
    assert verified_path(manifest, "a.npy").read_bytes() in (b"old", b"new")
    verify_manifests(["results"])

    make(b"new")
    assert OUTPUT.read_bytes() == (clean / "new" / "stamps.json").read_bytes()
    clean_orphans(["results", "--yes"])
    verify_manifests(["results"])
    assert verified_path(load_manifest(OUTPUT), "a.npy").read_bytes() == b"new"
    assert [path.name for path in OUTPUT.with_suffix("").iterdir()] == [Path(load_manifest(OUTPUT).uri).name]
