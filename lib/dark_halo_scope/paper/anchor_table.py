"""Table 4 of the paper: recall of known lenses by tier, and what the same thresholds let through."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.paper.tables import markdown_text, numbers, tex_text, write_tables

#: Schemes whose groups the paper prints; the CSV file has all.
_PRINTED = ("overall", "tier_", "stress")

_NOTES = (
    "Share of known lenses at or above a threshold, {confidence:.0%} Clopper-Pearson interval, and how many those are. "
    "Thresholds at a false positive rate are chosen on validation controls. Not a lens: galaxies of the test split "
    "without arcs.",
    "`not_circular` leaves out lenses that machine learning found in these very images. Stress lists are in no "
    "headline. Two tier schemes: `tier_grade` by the catalogue's grade, `tier_gen5_prime` by list and Einstein radius.",
)


def read_anchors(paths: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """anchors.json files by generation, in the order given.

    Raises:
        BadInputError: two are of one generation.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        result = read_json(path)
        if result["generation"] in found:
            raise BadInputError(f"{path} is of {result['generation']}, as is another; give each anchors.json once.")
        found[result["generation"]] = result
    return found


def groups(result: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Scheme, group and its shares by threshold: lenses first, then what is no lens."""
    for scheme in sorted(result["recall"], key=lambda name: (not name.startswith(_PRINTED), name)):
        for name, shares in result["recall"][scheme].items():
            yield scheme, name, shares
    for name, shares in result["contamination"].items():
        yield "not a lens", name, shares


def table(anchors: Mapping[str, Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Rows of numbers (a group and threshold each), text (a group each), and the notes below.

    Args:
        anchors: anchors.json by generation, in the order of the rows.

    Raises:
        BadInputError: the generations have other thresholds.
    """
    cuts = {generation: sorted(result["thresholds"], key=_order) for generation, result in anchors.items()}
    first = next(iter(cuts.values()))
    if any(names != first for names in cuts.values()):
        raise BadInputError("The anchors.json files have different thresholds; evaluate all with the same settings.")
    rows, lines = [], []
    for generation, result in anchors.items():
        for scheme, name, shares in groups(result):
            auc = result["auc"].get(scheme, {}).get(name)
            rows += [_row(generation, scheme, name, cut, shares[cut]) for cut in first]
            if auc is not None:
                rows.append(_row(generation, scheme, name, "auc", auc))
            size = next(iter(shares.values()))["n"]
            if size and (scheme.startswith(_PRINTED) or (scheme, name) == ("not a lens", "control")):
                lines.append(
                    {
                        "generation": f"`{generation}`",
                        "group": f"{scheme}: {name}",
                        "n": str(size),
                        **{_heading(cut): _share_text(shares[cut]) for cut in first},
                        "AUC": "" if auc is None else _auc_text(auc),
                    }
                )
    confidence = next(iter(anchors.values()))["confidence"]
    return rows, lines, [note.format(confidence=confidence) for note in _NOTES]


def _row(generation: str, scheme: str, group: str, cut: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "generation": generation,
        "scheme": scheme,
        "group": group,
        "threshold": cut,
        "at": entry.get("threshold"),
        "n": entry["n"],
        "k": entry.get("k"),
        **numbers("value", entry),
        "status": entry["status"],
    }


def _order(cut: str) -> tuple[bool, float]:
    """Probabilities first, from the plan's 0.5 down, then false positive rates, from common to rare."""
    return cut.startswith("fpr"), -float(cut.removeprefix("fpr").removeprefix("p"))


def _heading(cut: str) -> str:
    return f"p ≥ {cut[1:]}" if cut.startswith("p") else f"FPR {cut.removeprefix('fpr')}"


def _share_text(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "not measurable"
    low, high = entry["interval"]
    return f"{entry['value']:.2f} [{low:.2f}, {high:.2f}] ({entry['k']})"


def _auc_text(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "not measurable"
    interval = "" if entry["interval"] is None else f" [{entry['interval'][0]:.2f}, {entry['interval'][1]:.2f}]"
    return f"{entry['value']:.2f}{interval}"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of anchors."""
    parser = argument_parser("Write the recall of known lenses by tier as a table.")
    parser.add_argument("--anchors", nargs="+", required=True, type=Path, help="anchors.json, in the order of the rows")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md, .tex")
    arguments = parser.parse_args(argv)
    rows, lines, notes = table(read_anchors(arguments.anchors))
    write_tables(arguments.output, rows, markdown_text(lines, notes), tex_text(lines, notes))


if __name__ == "__main__":
    run(main)
