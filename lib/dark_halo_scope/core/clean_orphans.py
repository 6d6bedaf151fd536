"""List data that no manifest names, and with `--yes` remove them; never those of a live attempt.

Checkpoints of a training or a scoring that did not end, and stamps of a cutting that did not, are worth hours and look
like nobody's: they are listed apart, and removed only where `--checkpoints` asks for it too.
"""

from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.artifacts import Orphan, orphans, remove_orphan
from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argument_parser("List (and remove) what killed attempts and replaced data left behind.")
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    parser.add_argument("--data-root", help="also below this local directory or s3:// place of bulk data")
    parser.add_argument("--yes", action="store_true", help="remove what is listed, but no checkpoints")
    parser.add_argument("--checkpoints", action="store_true", help="with --yes: remove those of unfinished jobs too")
    options = parser.parse_args(argv)
    if not options.results.is_dir():
        raise BadInputError(f"{options.results} is not a directory; give the one that holds the results.")
    if options.checkpoints and not options.yes:
        raise BadInputError("--checkpoints removes nothing by itself; give --yes with it, or neither to list.")
    found = orphans(options.results, options.data_root)
    for orphan in found:
        removed = options.yes and (options.checkpoints or not orphan.resumable)
        if removed:
            remove_orphan(orphan)
        kind = "checkpoints" if orphan.resumable else "orphan"
        print(f"{'removed' if removed else kind}\t{orphan.bytes}\t{orphan.uri}")
    others = [orphan for orphan in found if not orphan.resumable]
    print(f"{_summary(others, 'orphan(s)')}{'' if options.yes or not others else '; remove with --yes'}.")
    unfinished = [orphan for orphan in found if orphan.resumable]
    if unfinished and options.checkpoints:
        print(f"{_summary(unfinished, 'unfinished training(s), scoring(s) or cutting(s)')}.")
    elif unfinished:
        print(
            f"{_summary(unfinished, 'unfinished training(s), scoring(s) or cutting(s)')}: each goes on when its rule "
            "runs again with the same code, settings and data; remove with --yes --checkpoints."
        )


def _summary(found: Sequence[Orphan], what: str) -> str:
    return f"{len(found)} {what}, {sum(orphan.bytes for orphan in found) / 1e6:.1f} MB"


if __name__ == "__main__":
    run(main)
