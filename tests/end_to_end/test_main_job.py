"""The main job, run whole on a tiny survey, killed on the way, and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from checkouts import MAIN_JOB, Checkout, make_checkout


def artifacts(checkout: Checkout) -> dict[str, bytes]:
    """Every artifact of a run but its provenance, which holds times and hosts."""
    results = checkout.path / "results"
    return {
        str(file.relative_to(results)): file.read_bytes()
        for file in sorted(results.rglob("*.json"))
        if not file.name.endswith(".provenance.json") and "checkpoints" not in file.parts
    }


def processes_in(folder: Path) -> list[int]:
    """Living processes whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == str(folder):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_the_gates_are_those_of_a_network_that_was_trained(finished: Checkout) -> None:
    gates = json.loads((finished.path / MAIN_JOB).read_text())
    best = json.loads((finished.path / "results/gen5_prime/main/best.json").read_text())
    assert gates["generation"] == "gen5_prime"
    assert gates["split"] == "test"
    assert gates["model_sha256"] == best["weights"]["sha256"]
    assert set(gates["gates"]) == {"G1", "G2", "G3", "G4", "G5"}
    assert gates["verdict"] in {"pass", "marginal", "fail"}


def test_what_the_manifests_claim_is_on_disk(finished: Checkout) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dark_halo_scope.core.verify_manifests", "results"],
        cwd=finished.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_no_row_is_lost_on_the_way(finished: Checkout) -> None:
    for name in ("catalogue/parent", "datasets/v5_cosmos_paired/stamps", "datasets/v5_cosmos_paired/packed"):
        manifest = json.loads((finished.path / "results" / f"{name}.json").read_text())
        assert manifest["rows_in"] == manifest["rows_out"] + manifest["rows_quarantined"], name


@pytest.mark.slow
def test_the_page_of_a_dataset_is_drawn_from_what_the_main_job_made(finished: Checkout, tmp_path: Path) -> None:
    # In a copy: other tests compare the finished run's artifacts.
    copy = Checkout(shutil.copytree(finished.path, tmp_path / "checkout", symlinks=True))
    page = "results/datasets/v5_cosmos_paired/page.png"
    assert copy.planned(page) == {"measure_arc_light", "figure_dataset_page"}
    run = copy.snakemake(page)
    assert run.returncode == 0, run.stderr[-6000:]
    facts = json.loads((copy.path / "results/datasets/v5_cosmos_paired/arc_light.json").read_text())["facts"]
    assert facts["kinds"]["positive"]["n"] > 0
    assert facts["lenses"] > 0
    assert (copy.path / page).stat().st_size > 50_000
    assert copy.planned(page) == set()


def test_killed_in_the_middle_the_job_resumes_to_the_same_bytes(
    finished: Checkout, project_root: Path, tmp_path: Path
) -> None:
    """kill -9 of the scheduler while stamps are injected: nothing lives on, nothing finished is lost."""
    checkout = make_checkout(project_root, tmp_path / "checkout")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", MAIN_JOB, "--config", "survey=tiny"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (tmp_path / "output.txt").open("w") as output:
        scheduler = subprocess.Popen(command, cwd=checkout.path, stdout=output, stderr=output, env=environment)
        started = checkout.path / "logs" / "inject_stamps" / "v5_cosmos_paired.log"
        deadline = time.monotonic() + 400
        while not started.exists():
            assert scheduler.poll() is None, (tmp_path / "output.txt").read_text()[-3000:]
            assert time.monotonic() < deadline, "inject_stamps never started"
            time.sleep(0.1)
        time.sleep(1.5)
        scheduler.send_signal(signal.SIGKILL)
        scheduler.wait()

    deadline = time.monotonic() + 15
    while processes_in(checkout.path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_in(checkout.path) == [], "an orphan of the killed run lives on"
    before = artifacts(checkout)
    assert "datasets/v5_cosmos_paired/coadds.json" in before
    assert "datasets/v5_cosmos_paired/stamps.json" not in before

    resume = subprocess.run(
        [sys.executable, "-m", "dark_halo_scope.core.resume"],
        cwd=checkout.path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert resume.returncode == 0, resume.stderr
    # Everything that was finished stays; what was cut off is made anew.
    assert checkout.planned("--rerun-incomplete", MAIN_JOB) == {
        "inject_stamps",
        "check_dataset",
        "pack_images",
        "train",
        "measure_gates",
    }
    assert checkout.snakemake("--rerun-incomplete", MAIN_JOB).returncode == 0
    assert artifacts(checkout) == artifacts(finished)
