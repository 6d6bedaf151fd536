"""Make a crashed workflow able to continue: `make resume`.

Refuses while the Snakemake that owns the working directory lives, else removes the locks that a killed one left.
Jobs need nothing: their own locks end with them, and what they had not published, no manifest names.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import DarkHaloScopeError, LockHeldError
from dark_halo_scope.core.locks import live_owner

# A workflow may hold it while it runs: known also from other hosts of a shared file system.
OWNER_LOCK = Path(".snakemake/owner.lock")


def _is_snakemake(command: Sequence[str]) -> bool:
    """Whether a command line is `snakemake ...`, `python .../snakemake ...` or `python -m snakemake ...`."""
    if not command:
        return False
    if os.path.basename(command[0]).startswith("python"):
        # Past the interpreter's own options, such as -u, up to the script or module.
        program = next((part for part in command[1:] if not part.startswith("-")), "")
        return os.path.basename(program) == "snakemake"
    return os.path.basename(command[0]) == "snakemake"


def live_snakemakes(directory: Path) -> list[int]:
    """Processes of this host that run Snakemake in `directory` (`--directory` makes it theirs too)."""
    wanted = directory.resolve()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            here = Path(os.readlink(process / "cwd"))
        except OSError:  # it ended, or is another user's
            continue
        if here == wanted and _is_snakemake(command):
            found.append(int(process.name))
    return sorted(found)


def refuse_while_owned(directory: Path) -> None:
    """Stop if a Snakemake owns `directory`.

    Raises:
        LockHeldError: one does; the sentence names its process.
    """
    owner = live_owner(directory / OWNER_LOCK)
    pids = live_snakemakes(directory)
    if owner is None and not pids:
        return
    who = str(owner) if owner is not None else f"process {pids[0]}"
    raise LockHeldError(f"Snakemake still runs in {directory.resolve()} ({who}): wait for it or stop it, then resume.")


def unlock(directory: Path, arguments: Sequence[str]) -> None:
    """Remove Snakemake's locks of `directory`, where there are any.

    Raises:
        DarkHaloScopeError: Snakemake cannot do it.
    """
    locks = directory / ".snakemake" / "locks"
    if not locks.is_dir() or not any(locks.iterdir()):
        print("No lock was left behind: nothing to do.")
        return
    command = [sys.executable, "-m", "snakemake", "--unlock", "--directory", str(directory), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise DarkHaloScopeError(
            f"Snakemake cannot unlock {directory.resolve()} ({last}); correct that and resume again."
        )
    print("The locks of a killed run are removed: the workflow can continue.")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argument_parser("Remove the locks of a Snakemake that was killed; refuse while it lives.")
    parser.add_argument("--directory", type=Path, default=Path("."), help="working directory of the workflow")
    parser.add_argument("arguments", nargs="*", help="after `--`: more arguments for `snakemake --unlock`")
    options = parser.parse_args(argv)
    refuse_while_owned(options.directory)
    unlock(options.directory, options.arguments)


if __name__ == "__main__":
    run(main)
