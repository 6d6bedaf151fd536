"""Measure false positive rates by stratum.

scores/{dataset}/test.json, parent.json ... -> stratified_fpr.csv
"""

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.files import write_text
from dark_halo_scope.core.locks import lock, lock_path
from dark_halo_scope.core.manifest import load_manifest, write_provenance
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.fpr_config import FprSettings
from dark_halo_scope.evaluation.score_inputs import load_scores
from dark_halo_scope.evaluation.score_table import ScoreTable, galaxy_facts, read_scores
from dark_halo_scope.evaluation.stratified_fpr import (
    GALAXY_FACTS,
    LABELS,
    NUMBERS,
    Cell,
    columns,
    stratified_rates,
)

MODULE = "dark_halo_scope.evaluation.stratify_fpr"

_logger = logging.getLogger(__name__)


def with_galaxy_facts(table: ScoreTable, catalogues: Sequence[Path]) -> ScoreTable:
    """Exposures and magnitude of each galaxy: what its row says, else the first catalogue that has the galaxy."""
    numbers = dict(table.numbers)
    for path in catalogues:
        for name, found in galaxy_facts(table, load_manifest(path), GALAXY_FACTS).items():
            known = numbers.get(name)
            numbers[name] = found if known is None else np.where(np.isnan(known), found, known)
    return replace(table, numbers=numbers)


def csv_text(rows: Sequence[dict[str, Cell]], names: Sequence[str]) -> str:
    """Rows as CSV, numbers in full: a threshold that is read back passes the same scores."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_text(row[name]) for name in names] for row in rows)
    return stream.getvalue()


def _text(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `stratify_fpr`."""
    parser = argument_parser("Measure false positive rates at fixed completeness, and the reverse, by stratum.")
    parser.add_argument("--scores", required=True, type=Path, help="scores of the test split")
    parser.add_argument(
        "--galaxies",
        nargs="*",
        type=Path,
        default=[],
        help="parent.json, confusers.json: exposures and magnitudes of galaxies whose scores lack them",
    )
    parser.add_argument("--output", required=True, type=Path, help="stratified_fpr.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, FprSettings)
    started = datetime.now(UTC)
    manifest = load_scores(arguments.scores, "test")
    with Progress(manifest.rows_out, "Reading scores") as progress:
        table = with_galaxy_facts(read_scores(manifest, NUMBERS, LABELS, progress.advance), arguments.galaxies)
    rows = []
    with Progress(None, "Measuring strata") as progress:
        for row in stratified_rates(table, settings):
            rows.append(row)
            progress.advance()
    with lock(lock_path(arguments.output)):
        write_provenance(arguments.output, MODULE, settings, [arguments.scores, *arguments.galaxies], started)
        write_text(arguments.output, csv_text(rows, columns(settings)))
    measured = sum(row["status"] == "measured" for row in rows)
    _logger.info("%d strata, %d of them measurable, in %s", len(rows), measured, arguments.output)


if __name__ == "__main__":
    run(main)
