"""Let a network through its gates, or say in one sentence why not, and exit non-zero.

What a file claims does not count: thresholds and verdict are recomputed from its numbers, and the files that the gates
were measured on must be the ones at hand.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.files import read_json, sha256_file, write_json
from dark_halo_scope.core.manifest import provenance_path
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gate_check import GateClosedError, failures, problems


def input_problems(result: Mapping[str, Any], given: Mapping[str, Path], provenance: Any) -> list[str]:
    """Why a gates.json was not made from the files at hand, as clauses; empty where it was.

    Args:
        result: a gates.json.
        given: role -> file at hand; a role that is not given is looked for where gates.json says it was.
        provenance: what lies beside gates.json.
    """
    inputs = result.get("inputs")
    if not isinstance(inputs, Mapping) or not {"model", "packed"} <= set(inputs):
        return ["it does not say which files it was made from"]
    found = []
    for role, recorded in inputs.items():
        path = given.get(role, Path(recorded["path"]))
        if not path.is_file():
            found.append(f"the {role} file {path} it was made from is gone")
        elif sha256_file(path) != recorded["sha256"]:
            found.append(f"it was made from another {role} file than {path}")
    recorded_by_provenance = {entry["sha256"] for entry in provenance["inputs"]}
    if recorded_by_provenance != {recorded["sha256"] for recorded in inputs.values()}:
        found.append("its provenance file names other inputs")
    if provenance["settings"] != result.get("settings"):
        found.append("its provenance file names other settings")
    return found


def check(gates: Path, given: Mapping[str, Path], settings: GateSettings) -> dict[str, Any]:
    """The gates.json, if it opens the gate.

    Raises:
        GateClosedError: if it is missing, altered, of other inputs, not finite, too few, or does not pass.
    """
    try:
        result, provenance, best = read_json(gates), read_json(provenance_path(gates)), read_json(given["model"])
        found = problems(result, settings)
        if not found:
            found = input_problems(result, given, provenance)
        if not found and best["weights"]["sha256"] != result["model_sha256"]:
            found = [f"it judges other weights than those of {given['model']}"]
    except DarkHaloScopeError as error:
        raise GateClosedError(f"The gate is closed: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GateClosedError(
            f"The gate is closed: {gates} cannot be read ({error!r}); measure the gates again."
        ) from error
    if found:
        raise GateClosedError(
            f"The gate is closed: {gates} cannot be trusted, {'; '.join(found)}; measure the gates again."
        )
    if result["verdict"] != "pass":
        raise GateClosedError(
            f"The gate is closed: the verdict of {gates} is {result['verdict']}: {'; '.join(failures(result))}."
        )
    return dict(result)


def main(argv: Sequence[str] | None = None) -> None:
    """Exit with status 0 only where the verdict is pass and can be trusted."""
    parser = argument_parser("Exit with status 0 only where the gates' verdict is pass and can be trusted.")
    parser.add_argument("--gates", required=True, type=Path, help="gates.json")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--packed", type=Path, help="packed.json (default: where gates.json says it was)")
    parser.add_argument("--output", type=Path, help="written where the gate opens")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, GateSettings)
    given = {"model": arguments.model, **({"packed": arguments.packed} if arguments.packed else {})}
    result = check(arguments.gates, given, settings)
    if arguments.output:
        passed = {key: result[key] for key in ("generation", "dataset", "split", "model_sha256", "verdict")}
        write_json(arguments.output, {**passed, "gates_sha256": sha256_file(arguments.gates)})


if __name__ == "__main__":
    run(main)
