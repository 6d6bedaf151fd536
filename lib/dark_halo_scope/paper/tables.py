"""Tables: the same rows as CSV for programs, as Markdown for people and as TeX for the paper."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_text
from dark_halo_scope.evaluation.gate_check import SEAL, seal

_BOUND = {"at most": "≤", "at least": "≥"}

#: What TeX would take for a command, or its usual fonts lack.
_TEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "θ_E": r"$\theta_\mathrm{E}$",
    "−": r"$-$",
    "–": "--",
    '"': r"$''$",
}

#: What gates.json files that compare have in common: they were measured on the same pairs in the same way.
_COMPARABLE = ("dataset", "split", "settings")


def read_gates(paths: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """gates.json files by generation, in the order given.

    Raises:
        CorruptDataError: a file is not what measure_gates wrote.
        BadInputError: two are of one generation.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        result = read_json(path)
        if not isinstance(result, dict) or result.get(SEAL) != seal(result):
            raise CorruptDataError(f"{path} is not what measure_gates wrote; measure the gates again.")
        name = str(result["generation"])
        if name in found:
            raise BadInputError(f"{path} is of {name}, as is another gates.json of this table; give each once.")
        found[name] = result
    return found


def gated_otherwise(gates: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Generations whose gates do not compare with those of most others, and in what they differ; in the order given."""
    measured = {name: {key: result[key] for key in _COMPARABLE} for name, result in gates.items()}
    for name, result in gates.items():
        measured[name]["packed images"] = result["inputs"]["packed"]["sha256"]
    keys = {name: json.dumps(values, sort_keys=True) for name, values in measured.items()}
    usual = Counter(keys.values()).most_common(1)[0][0]
    reference = measured[next(name for name, key in keys.items() if key == usual)]
    return {
        name: [key for key, value in values.items() if value != reference[key]]
        for name, values in measured.items()
        if keys[name] != usual
    }


def refuse_gated_otherwise(gates: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse gates that were not all measured on the same pairs in the same way.

    Raises:
        BadInputError: one was not.
    """
    for name, differing in gated_otherwise(gates).items():
        raise BadInputError(
            f"The gates of {name} differ in {', '.join(differing)} from the others; measure all on the same pairs with "
            "one setting."
        )


def auc_entry(gates: Mapping[str, Any]) -> Mapping[str, Any]:
    """The AUC of positives against their controls, over all pairs."""
    entry: Mapping[str, Any] = gates["diagnostics"]["auc_positive_control"]["all"]
    return entry


def gate_numbers(gates: Mapping[str, Any]) -> dict[str, Any]:
    """AUC, gates and verdict as columns of a CSV file; what was not measured is empty."""
    columns: dict[str, Any] = {"pairs": gates["diagnostics"]["pairs"], **numbers("auc", auc_entry(gates))}
    for name, entry in gates["gates"].items():
        columns |= numbers(name, entry) | {f"{name}_n": entry["n"], f"{name}_passed": entry["passed"]}
    return {**columns, "verdict": gates["verdict"]}


def numbers(name: str, entry: Mapping[str, Any]) -> dict[str, float | None]:
    """Value and interval of a measured number as three columns."""
    low, high = entry["interval"] or (None, None)
    return {name: entry["value"], f"{name}_low": low, f"{name}_high": high}


def number_text(entry: Mapping[str, Any]) -> str:
    """`0.501 [0.493, 0.507]`, or why there is no number."""
    if entry["value"] is None:
        return f"{entry['status']} (n = {entry['n']})"
    interval = "" if entry["interval"] is None else f" [{entry['interval'][0]:.3f}, {entry['interval'][1]:.3f}]"
    return f"{entry['value']:.3f}{interval}"


def gate_text(entry: Mapping[str, Any]) -> str:
    """A gate's number and whether it passed."""
    return f"{number_text(entry)} {'pass' if entry['passed'] else '**fail**'}"


def gate_headings(gates: Mapping[str, Any]) -> dict[str, str]:
    """Gate -> `G1 core ≤ 0.6`."""
    return {
        name: f"{name} {entry['title']} {_BOUND[entry['bound']]} {entry['threshold']:g}"
        for name, entry in gates["gates"].items()
    }


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; numbers keep all their digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_text(rows: Sequence[Mapping[str, str]], notes: Sequence[str]) -> str:
    """Rows as a Markdown table, with notes below it."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return "\n\n".join([table, *notes]) + "\n"


def tex_escaped(text: str) -> str:
    """Text as TeX prints it; `**bold**` and `` `code` `` become bold and typewriter."""
    escaped = re.sub("θ_E|.", lambda found: _TEX.get(found.group(), found.group()), text)
    bold = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", escaped)
    return re.sub(r"`(.+?)`", r"\\texttt{\1}", bold)


def tex_text(rows: Sequence[Mapping[str, str]], notes: Sequence[str]) -> str:
    """Rows as a tabular of the package booktabs, with notes below it; caption and float are the paper's."""
    lines = [[tex_escaped(cell) for cell in line] for line in (list(rows[0]), *(list(row.values()) for row in rows))]
    head, *body = [" & ".join(line) + r" \\" for line in lines]
    tabular = [rf"\begin{{tabular}}{{{'l' * len(rows[0])}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    below = [rf"\par\smallskip {tex_escaped(note)}" for note in notes]
    return "\n".join([*tabular, r"\end{tabular}", *below]) + "\n"


def write_tables(
    outputs: Sequence[Path], rows: Sequence[Mapping[str, Any]], markdown: str, tex: str | None = None
) -> None:
    """Write each output in the format of its suffix.

    Raises:
        BadInputError: a suffix is none of .csv, .md and, for tables that have it, .tex.
    """
    texts = {".csv": csv_text(rows), ".md": markdown} | ({} if tex is None else {".tex": tex})
    for path in outputs:
        if path.suffix not in texts:
            raise BadInputError(f"{path} is no table that is written here; let it end in {' or '.join(texts)}.")
    for path in outputs:
        write_text(path, texts[path.suffix])
