"""Measure a generation's performance.

scores/{dataset}/test.json, scores/{dataset}/val.json -> performance.json
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.evaluation.performance import performance
from dark_halo_scope.evaluation.performance_config import PerformanceSettings
from dark_halo_scope.evaluation.score_inputs import load_scores, refuse_unlike
from dark_halo_scope.evaluation.score_table import read_scores

MODULE = "dark_halo_scope.evaluation.measure_performance"

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `measure_performance`."""
    parser = argument_parser("Measure what a generation's scores say, with thresholds chosen on validation scores.")
    parser.add_argument("--test", required=True, type=Path, help="scores of the test split")
    parser.add_argument("--val", required=True, type=Path, help="scores of the validation split")
    parser.add_argument("--output", required=True, type=Path, help="performance.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, PerformanceSettings)
    started = datetime.now(UTC)
    test, val = load_scores(arguments.test, "test"), load_scores(arguments.val, "val")
    refuse_unlike(test, val, str(arguments.val))
    result = {
        "generation": test.facts.get("generation"),
        "model_sha256": test.facts.get("model_sha256"),
        "packed_sha256": test.facts.get("packed_sha256"),
        "quarantined": {"test": test.rows_quarantined, "val": val.rows_quarantined},
        "confidence": settings.confidence,
        **performance(read_scores(test), read_scores(val), settings),
    }
    write_result(arguments.output, result, MODULE, settings, [arguments.test, arguments.val], started)
    _logger.info("%s: wrote %s", result["generation"], arguments.output)


if __name__ == "__main__":
    run(main)
