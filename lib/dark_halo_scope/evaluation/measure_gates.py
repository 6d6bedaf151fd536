"""Measure the gates of a trained network on a packed split, and always write the numbers and the verdict.

Enforcing is another command (`check_gates`): a workflow rule that fails would lose its outputs.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.files import read_json, sha256_file
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.gate_table import print_gates
from dark_halo_scope.evaluation.gates import measure_gates, measured_pairs

MODULE = "dark_halo_scope.evaluation.measure_gates"

_BASELINES_STREAM = 1


def describe_inputs(paths: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Path and checksum of each input, by its role."""
    return {role: {"path": path.as_posix(), "sha256": sha256_file(path)} for role, path in paths.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Write gates.json."""
    parser = argument_parser("Measure the gates of a trained network; always writes numbers and verdict.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--packed", required=True, type=Path, help="packed.json")
    parser.add_argument("--quality", type=Path, help="quality.json, whose data-level AUCs go to the diagnostics")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--dataset", help="its name (default: the folder of packed.json)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, GateSettings)
    started = datetime.now(UTC)

    from dark_halo_scope.evaluation.paired_baselines import measure_paired_baselines
    from dark_halo_scope.images.packed import open_packed
    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads, diagnostic_too=True)
    predict = finder.predictor(settings.batch_pairs)
    split = open_packed(arguments.packed, arguments.split)
    total = min(split.rows.num_rows, settings.max_pairs or split.rows.num_rows)
    with Progress(total, "Measuring gates (pairs)") as progress:
        measured = measure_gates(
            predict, split, settings, np.random.default_rng(settings.seed), advance=progress.advance
        )
    if finder.preprocess.settings.control_source is not None:
        pairs_N = measured_pairs(split.rows, settings, np.random.default_rng(settings.seed))
        with Progress(total, "Measuring flux and variance alone (pairs)") as progress:
            # Its own stream: a network without control channels has the same numbers elsewhere.
            rng = np.random.default_rng(np.random.SeedSequence((settings.seed, _BASELINES_STREAM)))
            measured["diagnostics"]["paired_baselines"] = measure_paired_baselines(
                finder.preprocess, split, pairs_N, settings, rng, progress.advance
            )
    inputs = {"model": arguments.model, "packed": arguments.packed}
    if arguments.quality:
        inputs["quality"] = arguments.quality
        measured["diagnostics"]["shortcuts"] = read_json(arguments.quality).get("shortcuts")
    result: dict[str, Any] = sealed(
        {
            "generation": finder.card.get("generation"),
            "dataset": arguments.dataset or arguments.packed.parent.name,
            "split": arguments.split,
            "model_sha256": finder.card["weights"]["sha256"],
            "settings": settings.model_dump(mode="json"),
            "inputs": describe_inputs(inputs),
            **measured,
        }
    )
    write_result(arguments.output, result, MODULE, settings, list(inputs.values()), started)
    print_gates({str(result["generation"]): result})


if __name__ == "__main__":
    run(main)
