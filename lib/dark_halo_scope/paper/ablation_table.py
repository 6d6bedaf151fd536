"""Ablations in one table: the gates of each, and how far it lies from the base on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest, verified_path
from dark_halo_scope.evaluation.intervals import FloatArray, Interval, host_bootstrap, weighted_auc, weighted_mean
from dark_halo_scope.evaluation.pairs import host_labels
from dark_halo_scope.paper.config import TableSettings
from dark_halo_scope.paper.tables import (
    auc_entry,
    gate_headings,
    gate_numbers,
    gate_text,
    markdown_text,
    number_text,
    numbers,
    read_gates,
    refuse_gated_otherwise,
    write_tables,
)

KINDS = ("positive", "control", "hard_negative")

_COLUMNS = ("task_id", "kind", "logit", "brickname", "objid", "ra", "dec")

_NOTES = (
    "Every number is measured on the same test pairs, with {confidence:.0%} intervals by bootstrap over hosts. "
    "Differences are ablation less base on the same images, hosts resampled for both at once: an interval without zero "
    "is one that hosts alone do not explain. Each was trained once, so that what another seed would change is in none "
    "of the intervals.",
)


@dataclass(frozen=True)
class PairScores:
    """Logits of the pairs that a network scored, by kind, (N,) each, in the order of task_id; `host`: index, (N,)."""

    model_sha256: str
    task_id: NDArray[np.object_]
    host: NDArray[np.intp]
    logits: Mapping[str, FloatArray]


def read_scores(path: Path) -> PairScores:
    """The pairs of a scores manifest of which every kind was scored.

    Raises:
        BadInputError: it is no manifest of scores, or a kind is missing.
    """
    manifest = load_manifest(path, "scores")
    file = pq.ParquetFile(verified_path(manifest, "scores.parquet"))
    rows = file.read(columns=[name for name in _COLUMNS if name in file.schema_arrow.names])
    by_kind = {kind: _of_kind(rows, kind) for kind in KINDS}
    missing = [kind for kind, table in by_kind.items() if not table.num_rows]
    if missing:
        raise BadInputError(f"{path} has no scores of {', '.join(missing)}; score all kinds of the pairs.")
    # A pair with an image that could not be scored is no pair.
    common = set.intersection(*(set(table["task_id"].to_pylist()) for table in by_kind.values()))
    kept = {kind: table.filter(pc.is_in(table["task_id"], pa.array(sorted(common)))) for kind, table in by_kind.items()}
    return PairScores(
        model_sha256=manifest.facts["model_sha256"],
        task_id=kept["positive"]["task_id"].to_numpy(),
        host=host_labels(kept["positive"]),
        logits={kind: table["logit"].to_numpy() for kind, table in kept.items()},
    )


def _of_kind(rows: pa.Table, kind: str) -> pa.Table:
    return rows.filter(pc.equal(rows["kind"], kind)).sort_by("task_id")


def differences(base: PairScores, other: PairScores, settings: TableSettings) -> dict[str, dict[str, Any]]:
    """How far `other` lies from `base`, each with its interval.

    Returns:
        `auc`: of the AUC of positives against controls. `hard_negative_p`: of the mean p of hard negatives.

    Raises:
        BadInputError: the two scored different pairs.
    """
    if not np.array_equal(base.task_id, other.task_id):
        raise BadInputError("Base and ablation scored different pairs; score both on one packed dataset.")
    rng = np.random.default_rng(settings.seed)
    base_items = np.concatenate([base.logits["positive"], base.logits["control"]])

    def auc_difference(items_M: FloatArray, first_BM: FloatArray, second_BM: FloatArray) -> FloatArray:
        """The same resampled hosts for both networks: what they have in common cancels."""
        return weighted_auc(items_M, first_BM, second_BM) - weighted_auc(base_items, first_BM, second_BM)

    positive, control = other.logits["positive"], other.logits["control"]
    ones = np.ones((1, len(positive)))
    value = auc_difference(
        np.concatenate([positive, control]), np.hstack([ones, 0 * ones]), np.hstack([0 * ones, ones])
    )
    resampling = (base.host, rng, settings.bootstraps, settings.confidence)
    p_difference = expit(other.logits["hard_negative"]) - expit(base.logits["hard_negative"])
    return {
        "auc": _entry(float(value[0]), host_bootstrap(auc_difference, positive, control, *resampling)),
        "hard_negative_p": _entry(
            float(p_difference.mean()), host_bootstrap(weighted_mean, p_difference, p_difference, *resampling)
        ),
    }


def _entry(value: float, interval: Interval) -> dict[str, Any]:
    return {"value": value, "interval": [interval.low, interval.high]}


def table(
    gates: Mapping[str, Mapping[str, Any]], scores: Sequence[PairScores], settings: TableSettings
) -> tuple[list[dict[str, Any]], str]:
    """The table as rows of numbers and as Markdown, the base first.

    Args:
        gates: gates.json by generation; the first is the base's.
        scores: of each of them, in the same order.
        settings: titles and resampling.

    Raises:
        BadInputError: scores are of other weights than the gates, or of other pairs.
    """
    rows, lines = [], []
    for (name, result), scored in zip(gates.items(), scores, strict=True):
        if result["model_sha256"] != scored.model_sha256:
            raise BadInputError(f"Gates and scores of {name} are of different weights; make both again.")
        found = None if scored is scores[0] else differences(scores[0], scored, settings)
        title = settings.titles.get(name, name)
        rows.append(
            {
                "generation": name,
                "title": title,
                **gate_numbers(result),
                **{
                    column: value
                    for number in ("auc", "hard_negative_p")
                    for column, value in numbers(f"{number}_difference", found[number] if found else _NOTHING).items()
                },
                "model_sha256": result["model_sha256"],
            }
        )
        headings = gate_headings(result)
        lines.append(
            {
                "ablation": f"`{name}`: {title}",
                "AUC": number_text(auc_entry(result)),
                "AUC less the base's": _signed(found, "auc"),
                "mean p of hard negatives less the base's": _signed(found, "hard_negative_p"),
                **{headings[gate]: gate_text(entry) for gate, entry in result["gates"].items()},
                "verdict": f"**{result['verdict']}**",
            }
        )
    return rows, markdown_text(lines, [note.format(confidence=settings.confidence) for note in _NOTES])


_NOTHING: Mapping[str, Any] = {"value": None, "interval": None}


def _signed(found: Mapping[str, Mapping[str, Any]] | None, number: str) -> str:
    if found is None:
        return ""
    value, (low, high) = found[number]["value"], found[number]["interval"]
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of ablations."""
    parser = argument_parser("Write one table of a base and its ablations.")
    parser.add_argument("--gates", nargs="+", required=True, type=Path, help="gates.json, the base's first")
    parser.add_argument("--scores", nargs="+", required=True, type=Path, help="scores of the same, in the same order")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, TableSettings)
    if len(arguments.gates) != len(arguments.scores):
        raise BadInputError("The table needs the scores of every generation whose gates it has, in the same order.")
    scores = [read_scores(path) for path in arguments.scores]
    gates = read_gates(arguments.gates)
    refuse_gated_otherwise(gates)
    rows, markdown = table(gates, scores, settings)
    write_tables(arguments.output, rows, markdown)


if __name__ == "__main__":
    run(main)
