"""Table 5 of the paper: every trained generation beside one another, and beside what others have measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.evaluation.target_metrics import Step, Where
from dark_halo_scope.evaluation.target_numbers import Artifacts, Number, number_at, read_artifacts
from dark_halo_scope.paper.prior_work import PRIOR_RESULTS, PriorResult, Published
from dark_halo_scope.paper.tables import markdown_text, tex_text, write_tables

_PAIRS = "positives_vs_controls"

#: Column -> its heading, where our number lies, and the field of a prior result.
_COLUMNS: Mapping[str, tuple[str, str, tuple[Step, ...], str]] = {
    "auroc": ("AUROC", "performance", (_PAIRS, "auroc"), "auroc"),
    "tpr_at_fpr_1e-4": ("TPR at FPR 1e-4", "performance", (_PAIRS, "tpr_at_fpr", Where("fpr_target", 1e-4)), "tpr_1e4"),
    "tpr_at_fpr_1e-3": ("TPR at FPR 1e-3", "performance", (_PAIRS, "tpr_at_fpr", Where("fpr_target", 1e-3)), "tpr_1e3"),
    "tpr_at_fpr_1e-2": ("TPR at FPR 1e-2", "performance", (_PAIRS, "tpr_at_fpr", Where("fpr_target", 1e-2)), "tpr_1e2"),
    "fpr_at_tpr_0.85": ("FPR at TPR 0.85", "performance", (_PAIRS, "fpr_at_tpr", Where("tpr_target", 0.85)), "fpr_85"),
    "recall": ("real lenses, p ≥ 0.5", "anchors", ("recall", "overall", "headline", "p0.5"), "recall"),
}

_NOTES = (
    "No two lines compare directly: surveys, negatives and arcs differ. Generations of this run are measured on test "
    "pairs, where a positive's control is the same galaxy without its arc: another task than telling arcs from other "
    "galaxies, and no number of the earlier generations' own test sets. "
    "Intervals: bootstrap over hosts (AUROC), Clopper-Pearson (rates); ranges of others are as published.",
    "Not measurable: fewer than ten negatives lie above the threshold. Real lenses: {lenses}.",
)


def own_row(generation: str, artifacts: Artifacts, survey: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A generation of this run as numbers and as text."""
    found = {column: number_at(artifacts, where, steps) for column, (_, where, steps, _) in _COLUMNS.items()}
    measured_on = f"{survey}, test pairs of {artifacts['gates']['dataset']}"
    row: dict[str, Any] = {"who": generation, "measured_on": measured_on}
    for column, number in found.items():
        low, high = number.interval or (None, None)
        row |= {column: number.value, f"{column}_low": low, f"{column}_high": high}
        row |= {f"{column}_n": number.n, f"{column}_status": number.status}
    line = {"who": f"**{generation}**", "measured on": measured_on}
    line |= {heading: _own_text(found[column]) for column, (heading, *_) in _COLUMNS.items()}
    verdict = f"gates: {artifacts['gates']['verdict']}"
    return row | {"also": verdict, "source": "this run"}, line | {"also": verdict, "source": "this run"}


def prior_row(prior: PriorResult) -> tuple[dict[str, Any], dict[str, str]]:
    """A prior result as numbers and as text."""
    row: dict[str, Any] = {"who": prior.who, "measured_on": prior.measured_on}
    line = {"who": prior.who, "measured on": prior.measured_on}
    for column, (heading, _, _, field) in _COLUMNS.items():
        value: Published = getattr(prior, field)
        low, high = value if isinstance(value, tuple) else (None, None)
        row |= {column: None if isinstance(value, tuple) else value, f"{column}_low": low, f"{column}_high": high}
        row |= {f"{column}_n": None, f"{column}_status": "" if value is None else "published"}
        line[heading] = "" if value is None else f"{low:g}-{high:g}" if isinstance(value, tuple) else f"{value:.4g}"
    return row | {"also": prior.also, "source": prior.source}, line | {"also": prior.also, "source": prior.source}


def table(
    generations: Mapping[str, Artifacts], survey: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Rows of numbers, the same as text, and the notes below: our generations first, in the order given.

    Args:
        generations: what was measured of each: gates, performance and anchors.
        survey: facts of the survey.

    Raises:
        BadInputError: a generation lacks one of the three.
    """
    for generation, artifacts in generations.items():
        if missing := {"gates", "performance", "anchors"} - set(artifacts):
            raise BadInputError(f"The table lacks {', '.join(sorted(missing))} of {generation}; give all three.")
    name = f"embedded survey {survey['name']}" if survey["embedded"] else survey["name"]
    both = [own_row(generation, artifacts, name) for generation, artifacts in generations.items()]
    both += [prior_row(prior) for prior in PRIOR_RESULTS]
    lenses = "drawn with the embedded survey, in its own lens catalogue" if survey["embedded"] else "known lenses"
    rows, lines = zip(*both, strict=True)
    return list(rows), list(lines), [note.format(lenses=lenses) for note in _NOTES]


def _own_text(number: Number) -> str:
    if number.value is None:
        return "not measurable"
    interval = "" if number.interval is None else f" [{number.interval[0]:.3g}, {number.interval[1]:.3g}]"
    return f"{number.value:.3g}{interval}"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of generations and prior work."""
    parser = argument_parser("Write every generation beside what others have measured, as a table.")
    parser.add_argument("--survey", required=True, type=Path, help="survey.json")
    parser.add_argument(
        "--artifacts",
        nargs="+",
        required=True,
        type=Path,
        help="gates.json, performance.json and anchors.json of each generation, in the order of the rows",
    )
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md, .tex")
    arguments = parser.parse_args(argv)
    survey = load_manifest(arguments.survey, "survey").facts
    rows, lines, notes = table(read_artifacts(arguments.artifacts), survey)
    write_tables(arguments.output, rows, markdown_text(lines, notes), tex_text(lines, notes))


if __name__ == "__main__":
    run(main)
