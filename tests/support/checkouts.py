"""Copies of the project that a test may edit and run Snakemake in."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dry_runs import dry_run

PARTS = ["Snakefile", "config", "envs", "lib", "profiles", "rules", "workflow"]
MAIN_JOB = "results/gen5_prime/gates.json"
MAIN_RULES = {
    "describe_survey",
    "match_lenses",
    "select_parent_sample",
    "measure_sources",
    "build_injection_manifest",
    "cache_coadds",
    "inject_stamps",
    "check_dataset",
    "pack_images",
    "train",
    "measure_gates",
}


@dataclass(frozen=True)
class Checkout:
    """A copy of the project that a test may edit and run Snakemake in."""

    path: Path
    survey: str = "tiny"
    # What jobs find first on their PATH.
    programs: Path = Path(sys.executable).parent

    def snakemake(
        self, *arguments: str, survey: str | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here with this interpreter, on this checkout's survey or another."""
        given = ["--cores", "2", *arguments]
        if "--profile" not in arguments:
            given += ["--config", f"survey={survey or self.survey}"]
        environment = os.environ | {"PATH": f"{self.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        if "--dry-run" in arguments:
            return dry_run(given, self.path, environment, timeout)
        command = [sys.executable, "-m", "snakemake", *given]
        return subprocess.run(
            command, cwd=self.path, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )

    def planned(self, *arguments: str) -> set[str]:
        """The rules that would run."""
        run = self.snakemake("--dry-run", *(arguments or (MAIN_JOB,)))
        assert run.returncode == 0, run.stderr + run.stdout
        return planned_rules(run.stdout + run.stderr)

    @contextmanager
    def edited(self, relative: str, edit: Callable[[str], str]) -> Iterator[None]:
        """A file changed by `edit` for as long as the block runs."""
        file = self.path / relative
        before = file.read_text()
        after = edit(before)
        assert after != before, f"the edit changes nothing in {relative}"
        file.write_text(after)
        try:
            yield
        finally:
            file.write_text(before)


def planned_rules(output: str) -> set[str]:
    """Rule names in the job table of a dry run's output; empty where nothing is to be done."""
    table = re.search(r"^job\s+count\n-[- ]+\n(.*?)^total\s", output, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in output, output
        return set()
    return {line.split()[0] for line in table.group(1).splitlines() if line.strip()}


def planned_trainings(output: str) -> set[tuple[str, str]]:
    """Generation and stage of every training in a dry run's output."""
    return set(re.findall(r"Training (\w+), stage (\w+)", output))


def make_checkout(root: Path, target: Path, survey: str = "tiny") -> Checkout:
    """Copy what Snakemake needs to `target`, with the tests' tiny survey beside the real ones."""
    target.mkdir(parents=True)
    for part in PARTS:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / part)
    (target / "lambda").symlink_to("profiles/lambda")
    shutil.copy(Path(__file__).with_name("tiny.yaml"), target / "config" / "surveys" / "tiny.yaml")
    return Checkout(target, survey)
