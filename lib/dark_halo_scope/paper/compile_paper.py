"""The paper as a PDF, where LaTeX is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.files import write_bytes

COMMAND = "latexmk"
_SECONDS = 300
# Any fixed time: the PDF's bytes depend on its sources alone.
_EPOCH = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}


def compile_paper(source: Path) -> bytes:
    """The PDF of a paper.tex, with the figures, tables and numbers beside it.

    LaTeX runs on a copy: what it leaves behind never lies among results.

    Raises:
        ConfigError: LaTeX is not installed.
        BadInputError: LaTeX refuses the source; the sentence has the first thing that it says.
    """
    if shutil.which(COMMAND) is None:
        raise ConfigError(
            f"The paper needs LaTeX, and {COMMAND} is not installed: on Debian, apt-get install latexmk "
            "texlive-latex-recommended lmodern. paper.tex is complete without it."
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "paper"
        shutil.copytree(source.parent, copy, ignore=shutil.ignore_patterns("*.png", "*.pdf.*"))
        command = [COMMAND, "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", source.name]
        try:
            done = subprocess.run(
                command, cwd=copy, capture_output=True, timeout=_SECONDS, env=os.environ | _EPOCH, check=False
            )
        except subprocess.TimeoutExpired:
            raise BadInputError(f"LaTeX did not finish {source} within {_SECONDS} s.") from None
        made = copy / source.with_suffix(".pdf").name
        if done.returncode or not made.is_file():
            output = done.stdout.decode(errors="replace").splitlines()
            complaint = next((line for line in output if line.startswith("!")), "no reason given")
            raise BadInputError(f"LaTeX refuses {source}: {complaint}.")
        return made.read_bytes()


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, write."""
    parser = argument_parser("Compile the paper.")
    parser.add_argument("--paper", type=Path, required=True, help="paper.tex, with all that it inputs beside it")
    parser.add_argument("--output", type=Path, required=True, help="PDF to write")
    arguments = parser.parse_args(argv)
    write_bytes(arguments.output, compile_paper(arguments.paper))


if __name__ == "__main__":
    run(main)
