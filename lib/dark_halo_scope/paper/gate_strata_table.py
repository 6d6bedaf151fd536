"""Table 3 of the paper: every gate in every stratum, with what labels drawn at random would give."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.paper.tables import (
    gate_headings,
    gated_otherwise,
    markdown_text,
    number_text,
    numbers,
    read_gates,
    tex_text,
    write_tables,
)

STRATA = ("x < 0.5", "0.5 <= x < 1", "x >= 1", "all")

_NOTES = (
    "x = θ_E / PSF FWHM. {confidence:.0%} intervals by bootstrap over hosts; bold: the stratum that the gate is judged "
    "on. Null: what the gate's number is there under random labels, {confidence:.0%} of {permutations} permutations.",
)
_OTHERWISE = "Measured on other pairs or with other settings than most: {names}."


def table(gates: Mapping[str, Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Rows of numbers, the same as text, and the notes below.

    Args:
        gates: gates.json by generation, in the order of the rows.
    """
    rows, lines = [], []
    for generation, result in gates.items():
        headings = gate_headings(result)
        for name, gate in result["gates"].items():
            for stratum in _in_order(gate["strata"]):
                entry = gate["strata"][stratum]
                null = entry.get("null") or {}
                judged = stratum == gate["stratum"]
                rows.append(
                    {
                        "generation": generation,
                        "gate": name,
                        "weight": gate["weight"],
                        "stratum": stratum,
                        "n": entry["n"],
                        "hosts": entry.get("hosts"),
                        **numbers("value", entry),
                        "status": entry["status"],
                        "null_low": null.get("low"),
                        "null_high": null.get("high"),
                        "p_value": null.get("p_value"),
                        "judged": judged,
                        "bound": gate["bound"],
                        "threshold": gate["threshold"],
                        "passed": gate["passed"] if judged else None,
                        "verdict": result["verdict"],
                    }
                )
            null = gate.get("null")
            lines.append(
                {
                    "generation": f"`{generation}`",
                    "gate": headings[name],
                    **{stratum.replace("<=", "≤").replace(">=", "≥"): _text(gate, stratum) for stratum in STRATA},
                    "null": f"[{null['low']:.3f}, {null['high']:.3f}]" if null else "",
                    "judged": "pass" if gate["passed"] else "**fail**",
                }
            )
    settings = next(iter(gates.values()))["settings"]
    notes = [note.format(confidence=settings["confidence"], permutations=settings["permutations"]) for note in _NOTES]
    others = gated_otherwise(gates)
    return rows, lines, [*notes, *([_OTHERWISE.format(names=", ".join(others))] if others else [])]


def _in_order(strata: Mapping[str, Any]) -> list[str]:
    """From unresolved to all, strata with other edges behind them."""
    return [*(name for name in STRATA if name in strata), *sorted(set(strata) - set(STRATA))]


def _text(gate: Mapping[str, Any], stratum: str) -> str:
    entry = gate["strata"].get(stratum)
    if entry is None:
        return ""
    text = number_text(entry)
    return f"**{text}**" if stratum == gate["stratum"] else text


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of gates by stratum."""
    parser = argument_parser("Write every gate in every stratum as a table.")
    parser.add_argument("--gates", nargs="+", required=True, type=Path, help="gates.json, in the order of the rows")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md, .tex")
    arguments = parser.parse_args(argv)
    rows, lines, notes = table(read_gates(arguments.gates))
    write_tables(arguments.output, rows, markdown_text(lines, notes), tex_text(lines, notes))


if __name__ == "__main__":
    run(main)
