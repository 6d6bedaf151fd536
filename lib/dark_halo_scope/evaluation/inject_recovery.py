"""Inject lenses into galaxies of the test split and ask the frozen finder: recovery.json, one row for each injection.

    frozen.json, best.json, hosts, coadds, sources -> recovery.json, `recovery.parquet`

Images live from the renderer to the network and no longer. What the rows are for, the selection function, is
`evaluation.measure_selection_function`'s. A run that is killed goes on where it was, as scoring does.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.freeze import require_frozen
from dark_halo_scope.evaluation.parts import parts_folder
from dark_halo_scope.evaluation.recovery_inputs import add_arguments, hosts_and_job, input_files
from dark_halo_scope.evaluation.recovery_parts import recover
from dark_halo_scope.evaluation.scores import write_scores
from dark_halo_scope.injection.recovery_config import FAMILIES, RecoverySettings
from dark_halo_scope.injection.recovery_hosts import SPLIT
from dark_halo_scope.injection.recovery_schema import KIND, RECOVERY_SCHEMA

MODULE = "dark_halo_scope.evaluation.inject_recovery"

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Write recovery.json and the Parquet file behind it."""
    parser = argument_parser("Inject lenses into galaxies of the test split and score them with a frozen finder.")
    parser.add_argument("--frozen", required=True, type=Path, help="frozen.json, the finder's card")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    add_arguments(parser)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--workers", type=int, default=0, help="processes that render; 0 renders in this one")
    parser.add_argument("--data-root", help="where the rows go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path, help="recovery.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, RecoverySettings)
    frozen = require_frozen(arguments.frozen, arguments.model)

    from dark_halo_scope.evaluation.frozen_behaviour import check_behaviour
    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    predict = finder.predictor(settings.batch)
    check_behaviour(frozen, predict)
    counts: Counter[str] = Counter()
    hosts, job = hosts_and_job(arguments, settings, finder.preprocess.size, counts)
    rows_in = hosts.num_rows * settings.replicates * len(settings.rungs)
    before: list[int] = []
    rungs: Counter[str] = Counter()

    def counted(folder: Path, progress: Progress) -> Iterator[tuple[pa.Table, pa.Table]]:
        for scored, left_out in recover(
            predict, hosts, job, arguments.workers, folder, finder.device.type, before.append
        ):
            rungs.update({item["values"]: item["counts"] for item in pc.value_counts(scored["rung"]).to_pylist()})
            progress.advance(scored.num_rows + left_out.num_rows)
            yield scored, left_out

    inputs = [arguments.frozen, arguments.model, *input_files(arguments)]
    with (
        attempt(arguments.output, KIND, MODULE, settings, inputs, arguments.data_root) as work,
        parts_folder(arguments.output, work.run_key) as parts,
    ):
        with Progress(rows_in, "Injecting and scoring (images)") as progress:
            rows_out, rows_quarantined, _ = write_scores(counted(parts, progress), work.prefix, KIND)
        if before:
            _logger.info("%d of %d injections had been scored before.", sum(before), rows_in)
        if not rows_out:
            raise BadInputError(f"No host of {arguments.hosts} has usable pixels in {arguments.coadds}.")
        work.publish(
            rows_in=rows_in,
            rows_out=rows_out,
            rows_quarantined=rows_quarantined,
            columns={field.name: str(field.type) for field in RECOVERY_SCHEMA},
            facts={
                "generation": frozen.generation,
                "split": SPLIT,
                "model_sha256": frozen.weights_sha256,
                "frozen_sha256": frozen.sha256,
                "thresholds": dict(frozen.thresholds),
                "settings": settings.model_dump(mode="json"),
                "hosts": dict(sorted(counts.items())),
                "host_source": load_manifest(arguments.hosts).kind,
                "rungs": {rung: rungs[rung] for rung in settings.rungs},
                "families": {family: rung for family, rung in FAMILIES.items() if rung in settings.rungs},
                "split_seed": settings.split_seed,
            },
        )


if __name__ == "__main__":
    run(main)
