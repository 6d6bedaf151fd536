"""gates.json as a table, several side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dark_halo_scope.evaluation.pairs import ALL

_BOUND = {"at most": "≤", "at least": "≥"}
_FILE_WIDTH = 160
_VERDICT_STYLE = {"pass": "bold green", "marginal": "bold yellow", "fail": "bold red"}


def gates_table(results: Mapping[str, Mapping[str, Any]], strata: bool = False) -> Table:
    """Gates as rows, one column per result.

    Args:
        results: heading of the column -> a gates.json.
        strata: also print every gate in every stratum.
    """
    table = Table(title="Gates", caption="value [95% interval] n pairs; a gate without a value is closed")
    for heading in ("gate", "number", "judged on", "due", "weight"):
        table.add_column(heading)
    for heading in results:
        table.add_column(heading, justify="right")
    entries = [result["gates"] for result in results.values()]
    for name, first in entries[0].items():
        due = f"{_BOUND[first['bound']]} {first['threshold']:g}"
        cells = [_judged(gates[name]) if name in gates else Text("absent") for gates in entries]
        table.add_row(f"{name} {first['title']}", first["number"], first["stratum"], due, first["weight"], *cells)
        for stratum in _strata(first) if strata else ():
            numbers = [Text(_number(gates[name]["strata"][stratum]), style="dim") for gates in entries if name in gates]
            table.add_row("", "", Text(stratum, style="dim"), "", "", *numbers)
    table.add_section()
    table.add_row("AUC positive/control", "AUC", "all", "", "", *(_auc(result) for result in results.values()))
    verdicts = [Text(str(result["verdict"]), style=_VERDICT_STYLE[result["verdict"]]) for result in results.values()]
    table.add_row(Text("verdict", style="bold"), "", "", "", "", *verdicts)
    return table


def remedy_lines(results: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """One line per gate that did not pass, with what to do."""
    return [
        f"{heading}: {name}: {remedy}"
        for heading, result in results.items()
        for name, remedy in result["remedies"].items()
    ]


def print_gates(results: Mapping[str, Mapping[str, Any]], strata: bool = False, stderr: bool = True) -> None:
    """Print the table and the remedies; wide enough for two results side by side where this is not a terminal."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=_FILE_WIDTH)
    console.print(gates_table(results, strata))
    for line in remedy_lines(results):
        console.print(line, soft_wrap=True)


def _strata(entry: Mapping[str, Any]) -> list[str]:
    """Strata from unresolved to resolved, then all; a JSON file has them in the order of the alphabet."""
    return sorted(
        entry["strata"], key=lambda name: (name == ALL, name.startswith("x >="), not name.startswith("x <"), name)
    )


def _judged(entry: Mapping[str, Any]) -> Text:
    style, mark = ("green", "pass") if entry["passed"] else ("red", "FAIL")
    return Text(f"{_number(entry)} {mark}", style=style)


def _auc(result: Mapping[str, Any]) -> str:
    return _number(result["diagnostics"]["auc_positive_control"]["all"])


def _number(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return f"{entry['status']} n={entry['n']}"
    interval = "" if entry["interval"] is None else f" [{entry['interval'][0]:.3f}, {entry['interval'][1]:.3f}]"
    return f"{entry['value']:.3f}{interval} n={entry['n']}"
