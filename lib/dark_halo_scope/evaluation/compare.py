"""Check that a negative control fails where the main generation passes.

A generation trained without hard negatives must fall for the radial shortcut. Where it does not, the gates could not
have told a shortcut from a finder, and the main generation's pass means nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation.gate_check import SEAL, GateClosedError, seal
from dark_halo_scope.evaluation.gate_table import print_gates


def compare(main_gates: Mapping[str, Any], control_gates: Mapping[str, Any]) -> dict[str, Any]:
    """What the control shows about the gates.

    Returns:
        `checks: {name: {expected, main, control, passed}}` and `passed`, whether all hold: the main generation passes
        G2, the control fails it, and the control's G4 lies above the main one's with disjoint intervals.

    Raises:
        BadInputError: if the two were not measured on the same pairs in the same way.
    """
    for key in ("dataset", "split", "settings"):
        if main_gates[key] != control_gates[key]:
            raise BadInputError(f"The two gates.json differ in {key}; measure both on the same pairs with one setting.")
    if main_gates["inputs"]["packed"]["sha256"] != control_gates["inputs"]["packed"]["sha256"]:
        raise BadInputError("The two gates.json were measured on different packed images; measure both again.")
    g2_main, g2_control = main_gates["gates"]["G2"], control_gates["gates"]["G2"]
    g4_main, g4_control = main_gates["gates"]["G4"], control_gates["gates"]["G4"]
    disjoint = bool(
        g4_main["interval"] and g4_control["interval"] and g4_control["interval"][0] > g4_main["interval"][1]
    )
    checks = {
        "G2 passes in the main generation": (g2_main, g2_control, g2_main["passed"]),
        "G2 is measured and fails in the negative control": (
            g2_main,
            g2_control,
            g2_control["value"] is not None and not g2_control["passed"],
        ),
        "G4 of the negative control lies above the main one's with disjoint intervals": (g4_main, g4_control, disjoint),
    }
    summary = {
        name: {
            side: {key: entry[key] for key in ("value", "interval", "n", "status")}
            for side, entry in (("main", first), ("control", second))
        }
        | {"passed": bool(passed)}
        for name, (first, second, passed) in checks.items()
    }
    return {"checks": summary, "passed": all(check["passed"] for check in summary.values())}


def main(argv: Sequence[str] | None = None) -> None:
    """Compare two gates.json; exits non-zero unless the control behaves as a control must."""
    parser = argument_parser("Check that the negative control fails where the main generation passes.")
    parser.add_argument("--main", required=True, type=Path, help="gates.json of the main generation")
    parser.add_argument("--control", required=True, type=Path, help="gates.json of the negative control")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--report-only", action="store_true", help="write the comparison and exit 0 whatever it says")
    arguments = parser.parse_args(argv)
    results = {path: read_json(path) for path in (arguments.main, arguments.control)}
    for path, result in results.items():
        if not isinstance(result, dict) or result.get(SEAL) != seal(result):
            raise BadInputError(f"{path} is not what measure_gates wrote; measure the gates again.")
    main_gates, control_gates = results.values()
    comparison = {
        "main": main_gates["generation"],
        "control": control_gates["generation"],
        **compare(main_gates, control_gates),
    }
    write_json(arguments.output, comparison)
    print_gates({str(arguments.main): main_gates, str(arguments.control): control_gates})
    missed = [name for name, check in comparison["checks"].items() if not check["passed"]]
    if missed and not arguments.report_only:
        raise GateClosedError(
            f"{comparison['control']} is no negative control of {comparison['main']}: it does not hold that "
            f"{', nor that '.join(missed)}; see {arguments.output}."
        )


if __name__ == "__main__":
    run(main)
