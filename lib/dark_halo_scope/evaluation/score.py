"""Score every image of a packed split: scores as Parquet behind a manifest.

A scoring that is killed goes on where it was when it is started again with the same code, settings and inputs: finished
parts lie beside the output, in `checkpoints/<run key>/`. A scoring that ends removes them, and those of any other.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.config import ScoreSettings
from dark_halo_scope.evaluation.parts import parts_folder
from dark_halo_scope.evaluation.score_parts import score_in_parts
from dark_halo_scope.evaluation.scores import write_scores
from dark_halo_scope.images.packed import KIND as PACKED
from dark_halo_scope.images.packed import check_split, image_batches, image_count

MODULE = "dark_halo_scope.evaluation.score"

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Write scores.json and the Parquet file behind it."""
    parser = argument_parser("Score every image of a packed split.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--packed", required=True, type=Path, help="packed.json")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--data-root", help="where the scores go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, ScoreSettings)

    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    predict = finder.predictor(settings.batch)
    packed = load_manifest(arguments.packed, PACKED)
    check_split(packed, arguments.split)
    rows_in = sum(image_count(packed, arguments.split, kind) for kind in settings.kinds)
    batches = image_batches(packed, arguments.split, settings.kinds, settings.batch)

    before: list[int] = []

    def counted(folder: Path, progress: Progress) -> Iterator[tuple[pa.Table, pa.Table]]:
        parts = score_in_parts(predict, batches, arguments.split, folder, finder.device.type, before.append)
        for scored, left_out in parts:
            progress.advance(scored.num_rows + left_out.num_rows)
            yield scored, left_out

    everything = {**settings.model_dump(mode="json"), "split": arguments.split}
    inputs = [arguments.model, arguments.packed]
    with (
        attempt(arguments.output, "scores", MODULE, everything, inputs, arguments.data_root) as work,
        parts_folder(arguments.output, work.run_key) as parts,
    ):
        with Progress(rows_in, f"Scoring {arguments.split} (images)") as progress:
            rows_out, rows_quarantined, schema = write_scores(counted(parts, progress), work.prefix)
        if before:
            _logger.info("%d of %d images had been scored before.", sum(before), rows_in)
        if schema is None:
            raise BadInputError(f"{arguments.packed} has no rows in split {arguments.split}; choose another split.")
        work.publish(
            rows_in=rows_in,
            rows_out=rows_out,
            rows_quarantined=rows_quarantined,
            columns={field.name: str(field.type) for field in schema},
            facts={
                "generation": finder.card.get("generation"),
                "split": arguments.split,
                "kinds": list(settings.kinds),
                "model_sha256": finder.card["weights"]["sha256"],
                "packed_sha256": packed.sha256,
            },
        )


if __name__ == "__main__":
    run(main)
