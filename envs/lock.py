"""Write envs/*.lock and envs/*.yaml from pyproject.toml: `make lock`.

One universal resolution (Linux on x86_64 and aarch64, Python 3.11 and newer) is made first; each
environment is then cut out of it, so that no two environments disagree about a version and
`.venv` can hold them all. Beside them, spark35.lock has the Spark of EMR, for tests. Needs `uv`, which `make setup`
installs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ["workflow", "spark", "train", "figures", "dev"]  # each an extra of pyproject.toml
# Whatever an environment needs that PyPI does not have.
CONDA_PACKAGES = {"spark": ["openjdk=17"]}
# EMR 7 has Spark 3.5, `.venv` Spark 4: tests run on both.
SPARK35 = "pyspark>=3.5,<3.6"


def compile_lock(extras: list[str], output: Path, constraint: Path | None) -> None:
    """Resolve the project with `extras` into `output`, within `constraint` where given."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--no-header", "--no-annotate", "--output-file", str(output), str(ROOT / "pyproject.toml")]
    command += [part for extra in extras for part in ("--extra", extra)]
    if constraint is not None:
        command += ["--constraint", str(constraint)]
    subprocess.run(command, check=True)


def compile_spark35(output: Path) -> None:
    """Resolve Spark 3.5 and what it alone needs into `output`, to be installed in a folder of its own."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--python-version", "3.11"]
    command += ["--no-header", "--no-annotate", "--output-file", str(output), "-"]
    subprocess.run(command, input=SPARK35, text=True, check=True)


def conda_yaml(name: str, pins: list[str]) -> str:
    """The conda environment with the same pins, for those who run Snakemake with --sdm conda.

    The pins stand in the file itself: Snakemake copies it elsewhere, where a `-r` path would point nowhere.
    """
    packages = ["python=3.11", *CONDA_PACKAGES.get(name, []), "pip"]
    lines = ["# Written by envs/lock.py from the lock beside it.", "channels: [conda-forge]", "dependencies:"]
    lines += [f"  - {package}" for package in packages]
    lines += ["  - pip:", *(f'      - "{pin}"' for pin in pins)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Resolve everything once, then cut out each environment."""
    compile_spark35(ROOT / "envs" / "spark35.lock")
    with tempfile.TemporaryDirectory() as scratch:
        everything = Path(scratch) / "everything.lock"
        compile_lock(list(ENVIRONMENTS), everything, None)
        for name in ENVIRONMENTS:
            lock = ROOT / "envs" / f"{name}.lock"
            compile_lock([name], lock, everything)
            (ROOT / "envs" / f"{name}.yaml").write_text(conda_yaml(name, lock.read_text().splitlines()))


if __name__ == "__main__":
    main()
