"""Check again every byte that the results claim: `python -m dark_halo_scope.core.verify_manifests results`."""

from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.artifacts import result_files, verify_result
from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, DarkHaloScopeError
from dark_halo_scope.core.progress import track


def verify(results: Path) -> tuple[int, list[str]]:
    """Number of objects that are right, and one sentence for each result file whose data are not.

    Raises:
        BadInputError: there is no such directory.
        CorruptDataError: a result file is not JSON.
    """
    if not results.is_dir():
        raise BadInputError(f"{results} is not a directory; give the one that holds the results.")
    good, problems = 0, []
    for path, values in track(list(result_files(results)), "result files verified"):
        try:
            good += verify_result(path, values)
        except DarkHaloScopeError as error:
            problems.append(f"{path}: {error}")
    return good, problems


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argument_parser("Check sizes and checksums of all data that manifests name.")
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    options = parser.parse_args(argv)
    good, problems = verify(options.results)
    for problem in problems:
        print(problem)
    print(f"{good} objects are as their manifests say.")
    if problems:
        raise CorruptDataError(
            f"{len(problems)} result file(s) below {options.results} name data that changed: "
            "remove those files, and run the workflow to make them again."
        )


if __name__ == "__main__":
    run(main)
