"""Every generation in one table: what it was trained on, for how long, and what its gates say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import provenance_path
from dark_halo_scope.paper.config import TableSettings
from dark_halo_scope.paper.tables import (
    auc_entry,
    gate_headings,
    gate_numbers,
    gate_text,
    gated_otherwise,
    markdown_text,
    number_text,
    read_gates,
    write_tables,
)

_NOTES = (
    "Validation AUC is of each generation's own validation split: positives against their controls where batches hold "
    "pairs, against other galaxies elsewhere; it does not compare across datasets. Everything to its right is measured "
    "on the same test pairs, with {confidence:.0%} intervals by bootstrap over hosts.",
    "Minutes are wall time of the run that ended each stage's training; a run that was resumed counts from there.",
)

_GATED_OTHERWISE = (
    "Gated otherwise: on other pairs or with other settings than most, so that its numbers, which its gates.json has, "
    "compare with none of this table."
)


@dataclass(frozen=True)
class Stage:
    """One trained stage.

    epochs: how many were trained. best_epoch: the one whose weights were kept, counted from 1. minutes: wall time,
    None where nobody knows.
    """

    generation: str
    name: str
    dataset: str
    epochs: int
    best_epoch: int
    val_auc: float
    weights_sha256: str
    minutes: float | None


def read_stage(best: Path, history_path: Path) -> Stage:
    """A stage from its best.json and history.json, and from the provenance beside the first.

    Raises:
        BadInputError: one of the two results is missing.
    """
    card, history = read_json(best), read_json(history_path)
    return Stage(
        generation=card["generation"],
        name=card["stage"],
        dataset=card["dataset"],
        epochs=len(history["epochs"]),
        best_epoch=card["epoch"] + 1,
        val_auc=card["val_auc"],
        weights_sha256=card["weights"]["sha256"],
        minutes=_minutes(provenance_path(best)),
    )


def _minutes(provenance: Path) -> float | None:
    """Wall minutes of the run that wrote an artifact. No rule depends on it: a time is no reason to run again."""
    if not provenance.exists():
        return None
    times = read_json(provenance)
    if not times.get("started"):
        return None
    return (datetime.fromisoformat(times["finished"]) - datetime.fromisoformat(times["started"])).total_seconds() / 60


def stages_of(name: str, gates: Mapping[str, Any], stages: Sequence[Stage]) -> list[Stage]:
    """The stages of a generation, in the order in which they were trained.

    Raises:
        BadInputError: there is none, or the gates are those of other weights than the last stage's.
    """
    own = [stage for stage in stages if stage.generation == name]
    if not own:
        raise BadInputError(f"The table has gates of {name} and no best.json of it; give both.")
    if gates["model_sha256"] != own[-1].weights_sha256:
        raise BadInputError(
            f"The gates of {name} are those of other weights than its stage {own[-1].name} has; measure them again."
        )
    return own


def table(
    gates: Mapping[str, Mapping[str, Any]], stages: Sequence[Stage], titles: Mapping[str, str]
) -> tuple[list[dict[str, Any]], str]:
    """The table as rows of numbers and as Markdown.

    Args:
        gates: gates.json by generation, in the order of the rows.
        stages: of all of them, those of a generation in the order of training.
        titles: what each generation is.

    Raises:
        BadInputError: gates and stages do not belong together.
    """
    rows, lines = [], []
    others = gated_otherwise(gates)
    usual = next(result for name, result in gates.items() if name not in others)
    headings = gate_headings(usual)
    # Columns of the CSV file, of which a generation that was gated otherwise fills none but the verdict.
    nothing = dict.fromkeys(gate_numbers(usual))
    for name, result in gates.items():
        differing = others.get(name, [])
        own = stages_of(name, result, stages)
        minutes = [stage.minutes for stage in own]
        known = [value for value in minutes if value is not None]
        total = sum(known) if len(known) == len(own) else None
        shared = {"generation": name, "title": titles.get(name, ""), "dataset": own[-1].dataset}
        rows.append(
            {
                **shared,
                "stages": "+".join(stage.name for stage in own),
                "epochs": "+".join(str(stage.epochs) for stage in own),
                "best_epoch": own[-1].best_epoch,
                "val_auc": own[-1].val_auc,
                "minutes": None if total is None else round(total, 2),
                "gated_otherwise": ", ".join(differing),
                **(nothing | {"verdict": result["verdict"]} if differing else gate_numbers(result)),
                "model_sha256": result["model_sha256"],
            }
        )
        lines.append(
            {
                "generation": f"`{name}`" + (f": {titles[name]}" if titles.get(name) else ""),
                "trained on": own[-1].dataset,
                "epochs (best)": " + ".join(_epochs_text(stage, len(own) > 1) for stage in own),
                "validation AUC": f"{own[-1].val_auc:.3f}",
                "AUC": "" if differing else number_text(auc_entry(result)),
                **{headings[gate]: "" if differing else gate_text(entry) for gate, entry in result["gates"].items()},
                "verdict": f"**{result['verdict']}**"
                + (f" (gated otherwise: {', '.join(differing)})" * bool(differing)),
                "minutes": "unknown" if total is None else " + ".join(f"{value:.1f}" for value in known),
            }
        )
    notes = [note.format(confidence=usual["settings"]["confidence"]) for note in _NOTES]
    return rows, markdown_text(lines, [*notes, _GATED_OTHERWISE] if others else notes)


def _epochs_text(stage: Stage, named: bool) -> str:
    return f"{stage.name} {stage.epochs} ({stage.best_epoch})" if named else f"{stage.epochs} ({stage.best_epoch})"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of generations."""
    parser = argument_parser("Write one table of all generations.")
    parser.add_argument("--gates", nargs="+", required=True, type=Path, help="gates.json, in the order of the rows")
    parser.add_argument(
        "--models", nargs="+", required=True, type=Path, help="best.json of every stage, in the order of training"
    )
    parser.add_argument("--histories", nargs="+", required=True, type=Path, help="history.json of the same stages")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, TableSettings)
    if len(arguments.models) != len(arguments.histories):
        raise BadInputError("The table needs one history.json for each best.json, in the same order.")
    stages = [read_stage(*paths) for paths in zip(arguments.models, arguments.histories, strict=True)]
    rows, markdown = table(read_gates(arguments.gates), stages, settings.titles)
    write_tables(arguments.output, rows, markdown)


if __name__ == "__main__":
    run(main)
