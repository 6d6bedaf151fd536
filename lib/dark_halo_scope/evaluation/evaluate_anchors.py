"""Recall of known lenses at the thresholds of a generation: anchors.json, and every anchor's score in anchors.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_text
from dark_halo_scope.core.manifest import load_manifest, verified_path, write_result
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.anchors import COMPARED, anchor_table, comparison_samples, measure_anchors, thresholds
from dark_halo_scope.evaluation.score_table import read_scores

MODULE = "dark_halo_scope.evaluation.evaluate_anchors"


def main(argv: Sequence[str] | None = None) -> None:
    """Write anchors.json and anchors.csv."""
    parser = argument_parser("Measure the recall of known lenses, by group and threshold.")
    parser.add_argument("--scores", required=True, type=Path, help="anchor_scores.json")
    parser.add_argument("--performance", required=True, type=Path, help="performance.json, for thresholds at fixed FPR")
    parser.add_argument(
        "--comparison",
        required=True,
        type=Path,
        help="scores of the gate dataset's test split: galaxies without lenses",
    )
    parser.add_argument("--output", required=True, type=Path, help="anchors.json")
    parser.add_argument("--table", required=True, type=Path, help="anchors.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, AnchorEvaluationSettings)
    anchors, compared = (load_manifest(path, "scores") for path in (arguments.scores, arguments.comparison))
    performance = read_json(arguments.performance)
    model_sha256 = one_model(
        {
            str(arguments.scores): anchors.facts.get("model_sha256"),
            str(arguments.comparison): compared.facts.get("model_sha256"),
            str(arguments.performance): performance.get("model_sha256"),
        }
    )
    rows = pq.read_table(verified_path(anchors, "scores.parquet"))
    measured = measure_anchors(
        rows,
        anchors.facts.get("excluded", {}),
        comparison_samples(read_scores(compared, labels=tuple(COMPARED))),
        thresholds(settings.probabilities, performance["operating_points"]),
        settings,
    )
    facts = {
        "generation": anchors.facts.get("generation"),
        "model_sha256": model_sha256,
        "comparison_split": compared.facts.get("split"),
    }
    inputs = [arguments.scores, arguments.performance, arguments.comparison]
    # The table first: what reads the result finds the table that belongs to it.
    write_text(arguments.table, csv_text(anchor_table(rows)))
    write_result(arguments.output, {**facts, **measured}, MODULE, settings, inputs)


def one_model(models: Mapping[str, Any]) -> str:
    """The checksum of the weights that made all inputs.

    Raises:
        BadInputError: they are of several networks, or one does not say of which.
    """
    known = set(models.values())
    if len(known) != 1 or None in known:
        made_by = "; ".join(f"{path}: {sha256 or 'does not say'}" for path, sha256 in models.items())
        raise BadInputError(f"The inputs are not of one network ({made_by}); make them again with the same weights.")
    return str(known.pop())


def csv_text(table: pa.Table) -> str:
    """A table as CSV with a header; nulls are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return stream.getvalue()


if __name__ == "__main__":
    run(main)
