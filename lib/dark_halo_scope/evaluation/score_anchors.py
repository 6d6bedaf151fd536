"""Score known lenses: cutouts of a list through the preprocessing that the network was trained with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.anchors import excluded_reasons
from dark_halo_scope.evaluation.cutout_scores import centre_crop, condition_reasons, score_cutouts
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.scores import write_scores
from dark_halo_scope.images.cutouts import KIND as CUTOUTS
from dark_halo_scope.images.cutouts import open_cutouts

MODULE = "dark_halo_scope.evaluation.score_anchors"


def score_list(
    predict: Predict, images_N3HW: NDArray[np.floating], rows: pa.Table, meta_columns: Sequence[str], batch: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Scored rows and rows that cannot be scored, batch by batch, in the order of the list."""
    for first in range(0, rows.num_rows, batch):
        part = rows.slice(first, batch).combine_chunks()
        failed = [
            None if ok else reason or "cutout not ok"
            for ok, reason in zip(part["cutout_ok"].to_pylist(), part["cutout_reason"].to_pylist(), strict=True)
        ]
        unknown = condition_reasons(part, meta_columns)
        reasons = [a or b for a, b in zip(failed, unknown, strict=True)]
        yield score_cutouts(predict, images_N3HW[first : first + batch], part, reasons)


def main(argv: Sequence[str] | None = None) -> None:
    """Write anchor_scores.json and the Parquet file behind it."""
    parser = argument_parser("Score the cutouts of known lenses.")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--cutouts", required=True, type=Path, help="results/anchors/cutouts.json")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--data-root", help="where the scores go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, AnchorEvaluationSettings)

    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    manifest = load_manifest(arguments.cutouts, CUTOUTS)
    images_N3HW, rows = open_cutouts(arguments.cutouts)
    # Slices of a memory map: nothing is read yet.
    images_N3HW = centre_crop(images_N3HW, finder.preprocess.size)
    predict = finder.predictor(settings.batch)
    meta_columns = finder.model.settings.meta_columns
    left_out: list[str] = []

    def counted(progress: Progress) -> Iterator[tuple[pa.Table, pa.Table]]:
        for scored, bad in score_list(predict, images_N3HW, rows, meta_columns, settings.batch):
            left_out.extend(bad["quarantine_reason"].to_pylist())
            progress.advance(scored.num_rows + bad.num_rows)
            yield scored, bad

    inputs = [arguments.model, arguments.cutouts]
    with attempt(arguments.output, "scores", MODULE, settings, inputs, arguments.data_root) as work:
        with Progress(rows.num_rows, "Scoring anchors") as progress:
            rows_out, rows_quarantined, schema = write_scores(counted(progress), work.prefix)
        if schema is None:
            raise BadInputError(f"{arguments.cutouts} has no rows: no anchor lies in the survey; add a list of lenses.")
        work.publish(
            rows_in=rows.num_rows,
            rows_out=rows_out,
            rows_quarantined=rows_quarantined,
            columns={field.name: str(field.type) for field in schema},
            facts={
                "generation": finder.card.get("generation"),
                "model_sha256": finder.card["weights"]["sha256"],
                "cutouts_sha256": manifest.sha256,
                "excluded": excluded_reasons(left_out),
            },
        )


if __name__ == "__main__":
    run(main)
