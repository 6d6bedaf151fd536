"""List data that no manifest names, and with `--yes` remove them; never those of a live attempt."""

from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.artifacts import orphans, remove_orphan
from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argument_parser("List (and remove) what killed attempts and replaced data left behind.")
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    parser.add_argument("--data-root", help="also below this local directory or s3:// place of bulk data")
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    options = parser.parse_args(argv)
    if not options.results.is_dir():
        raise BadInputError(f"{options.results} is not a directory; give the one that holds the results.")
    found = orphans(options.results, options.data_root)
    for orphan in found:
        if options.yes:
            remove_orphan(orphan)
        print(f"{'removed' if options.yes else 'orphan'}\t{orphan.bytes}\t{orphan.uri}")
    total = sum(orphan.bytes for orphan in found)
    print(f"{len(found)} orphan(s), {total / 1e6:.1f} MB{'' if options.yes or not found else '; remove with --yes'}.")


if __name__ == "__main__":
    run(main)
