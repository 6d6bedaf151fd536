"""Print gates.json files as one table: `python -m dark_halo_scope.evaluation.show_gates results/*/gates.json`."""

from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.evaluation.gate_table import print_gates


def main(argv: Sequence[str] | None = None) -> None:
    """Print the gates named on the command line."""
    parser = argument_parser("Print gates as a table.")
    parser.add_argument("gates", nargs="+", type=Path, help="gates.json files, shown side by side")
    parser.add_argument("--strata", action="store_true", help="also print every stratum")
    arguments = parser.parse_args(argv)
    results = {}
    for path in arguments.gates:
        result = read_json(path)
        heading = str(result.get("generation", path)) if isinstance(result, dict) else str(path)
        results[heading if heading not in results else str(path)] = result
    try:
        print_gates(results, arguments.strata, stderr=False)
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(
            f"One of {', '.join(map(str, arguments.gates))} is not a gates.json ({error!r}); measure the gates again."
        ) from error


if __name__ == "__main__":
    run(main)
