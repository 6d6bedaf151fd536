"""Faults 1, 3, 4 and 5: a Snakemake that is killed, started twice, or keeps what a failed job left."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / "lib"

SNAKEFILE = """
rule second:
    input: "results/first.json"
    output: "results/second.json"
    shell: "python job.py second {output}"

rule first:
    output: "results/first.json"
    shell: "python job.py first {output}"
"""

# Writes ten objects; while a file `slow` exists it takes its time, and while `fail` exists it fails half way.
JOB = f"""
import os, sys, time
sys.path.insert(0, {str(LIB)!r})
from pathlib import Path
from dark_halo_scope.core.cli import run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt

def main(argv):
    name, output = sys.argv[1:]
    with attempt(Path(output), name, "dark_halo_scope.core.resume", {{"name": name}}, []) as work:
        for number in range(10):
            (work.prefix / f"{{number}}.npy").write_bytes(f"{{name}} {{number}}".encode())
            if name == "second":
                Path("pid").write_text(str(os.getpid()))
                if Path("fail").exists() and number == 5:
                    raise BadInputError("Row 5 is bad; correct it.")
                while Path("slow").exists() and number == 5:
                    time.sleep(0.05)
        work.publish()
run(main)
"""


def environment() -> dict[str, str]:
    tools = Path(sys.executable).parent
    return {**os.environ, "PYTHONPATH": str(LIB), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


def snakemake(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def resume(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dark_halo_scope.core.resume"],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def workflow(directory: Path) -> Path:
    (directory / "Snakefile").write_text(SNAKEFILE)
    (directory / "job.py").write_text(JOB)
    return directory


def data(directory: Path) -> dict[str, bytes]:
    """Every result and datum but provenance, by its path."""
    root = directory / "results"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".provenance." not in path.name
    }


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@dataclass
class Story:
    """What happened to a workflow that was killed in its second rule and resumed."""

    resumed_while_alive: subprocess.CompletedProcess[str]
    second_run: subprocess.CompletedProcess[str]
    job_died: bool
    resumed: subprocess.CompletedProcess[str]
    first_untouched: bool
    rerun: subprocess.CompletedProcess[str]
    data: dict[str, bytes]
    clean_data: dict[str, bytes]


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    """Start, start again, resume too early, kill -9, resume, run to the end; and a clean run elsewhere."""
    clean = workflow(tmp_path_factory.mktemp("clean"))
    assert snakemake(clean).returncode == 0

    here = workflow(tmp_path_factory.mktemp("killed"))
    (here / "slow").touch()
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet"],
        cwd=here,
        env=environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert wait_for((here / "pid").exists)
        first = (here / "results/first.json").stat()
        resumed_while_alive = resume(here)
        second_run = snakemake(here)
    finally:
        scheduler.send_signal(signal.SIGKILL)
        scheduler.wait()
    job = int((here / "pid").read_text())
    job_died = wait_for(lambda: not is_alive(job), 10)
    resumed = resume(here)
    (here / "slow").unlink()
    rerun = snakemake(here, "--rerun-incomplete")
    after = (here / "results/first.json").stat()
    # What the killed attempt left has a name of its own, and no manifest names it.
    for orphan in (here / "results/second").glob("*.*"):
        shutil.rmtree(orphan)
    return Story(
        resumed_while_alive=resumed_while_alive,
        second_run=second_run,
        job_died=job_died,
        resumed=resumed,
        first_untouched=(first.st_ino, first.st_mtime_ns) == (after.st_ino, after.st_mtime_ns),
        rerun=rerun,
        data=data(here),
        clean_data=data(clean),
    )


def test_resume_refuses_while_the_owner_lives_and_names_it(story):
    assert story.resumed_while_alive.returncode == 1
    assert "Snakemake still runs in" in story.resumed_while_alive.stderr
    assert "process" in story.resumed_while_alive.stderr


def test_a_second_run_in_the_same_directory_leaves_with_a_clear_sentence(story):
    assert story.second_run.returncode != 0
    assert "Directory cannot be locked" in story.second_run.stderr


def test_a_job_dies_with_a_scheduler_that_was_killed(story):
    assert story.job_died


def test_resume_removes_the_locks_of_a_killed_run(story):
    assert story.resumed.returncode == 0, story.resumed.stderr
    assert "can continue" in story.resumed.stdout


def test_the_rerun_loses_no_finished_work_and_ends_with_the_bytes_of_a_clean_run(story):
    assert story.rerun.returncode == 0, story.rerun.stderr
    assert story.first_untouched
    assert story.data == story.clean_data


def test_resume_has_nothing_to_do_where_nothing_was_killed(tmp_path):
    done = resume(tmp_path)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_a_failed_job_leaves_nothing_for_keep_incomplete_to_keep(tmp_path):
    workflow(tmp_path)
    (tmp_path / "fail").touch()
    failed = snakemake(tmp_path, "--keep-incomplete")
    assert failed.returncode != 0
    assert "error: Row 5 is bad; correct it." in failed.stderr
    assert not (tmp_path / "results/second.json").exists()
    assert list((tmp_path / "results/second").iterdir()) == []
    (tmp_path / "fail").unlink()
    assert snakemake(tmp_path).returncode == 0
    assert len(list((tmp_path / "results/second").iterdir())) == 1
