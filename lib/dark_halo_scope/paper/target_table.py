"""Every success target of the plans with its verdict, as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.files import read_json
from dark_halo_scope.paper.tables import markdown_text, numbers, tex_text, write_tables

_NOTES = (
    "Measured on {name}: {condition}.",
    "A target is undecided where its interval holds values on both sides of what is due; in brackets what the value "
    "alone would say. Numbers without an interval are of one epoch of training, and are judged by their value.",
)


def table(targets: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Rows of numbers, the same as text, and the notes below.

    Args:
        targets: targets.json.
    """
    rows = [
        {
            **{key: result[key] for key in ("target", "generation", "source", "what", "bound", "threshold")},
            **numbers("value", result),
            **{key: result[key] for key in ("n", "verdict", "by_value", "status", "condition", "metric")},
        }
        for result in targets["targets"]
    ]
    lines = [
        {
            "source": result["source"],
            "what": result["what"],
            "generation": f"`{result['generation']}`",
            "due": result["due"],
            "measured": _measured_text(result),
            "n": "" if result["n"] is None else f"{result['n']:,}",
            "verdict": _verdict_text(result),
        }
        for result in targets["targets"]
    ]
    return rows, lines, [note.format(**targets["survey"]) for note in _NOTES]


def _measured_text(result: Mapping[str, Any]) -> str:
    if result["value"] is None:
        return ""
    interval = "" if result["interval"] is None else " [{:.3g}, {:.3g}]".format(*result["interval"])
    return f"{result['value']:.3g}{interval}"


def _verdict_text(result: Mapping[str, Any]) -> str:
    verdict = result["verdict"]
    if verdict == "undecided":
        return f"undecided ({result['by_value']})"
    if result["value"] is None:
        return str(result["status"])
    return f"**{verdict}**" if verdict == "not met" else str(verdict)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of targets."""
    parser = argument_parser("Write every success target with its verdict as a table.")
    parser.add_argument("--targets", required=True, type=Path, help="targets.json")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md, .tex")
    arguments = parser.parse_args(argv)
    rows, lines, notes = table(read_json(arguments.targets))
    write_tables(arguments.output, rows, markdown_text(lines, notes), tex_text(lines, notes))


if __name__ == "__main__":
    run(main)
