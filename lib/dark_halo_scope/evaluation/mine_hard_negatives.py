"""Mine hard negatives: galaxies of the parent sample without a lens that a generation scores highest.

    scores.json, packed.json, lenses.json -> hard_negatives.json, `negative.npy`, `negative_rows.parquet`

A generation that finds fewer than were asked for, or none, is no error: the number is recorded.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.catalogue.lens_positions import read_lens_positions
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, verified_paths
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.mining import SPLIT, winners, write_mined
from dark_halo_scope.evaluation.mining_config import MiningSettings
from dark_halo_scope.images.mined import KIND
from dark_halo_scope.images.packed import KIND as PACKED

MODULE = "dark_halo_scope.evaluation.mine_hard_negatives"

_logger = logging.getLogger(__name__)


def check_scores(scores: Manifest, packed: Manifest, where: str) -> None:
    """Refuse scores that are not of these galaxies, or not of training cells.

    Raises:
        BadInputError: it is so.
    """
    if scores.facts.get("split") != SPLIT:
        raise BadInputError(
            f"{where} holds scores of the split {scores.facts.get('split')}; only galaxies of training cells are mined."
        )
    if scores.facts.get("packed_sha256") != packed.sha256:
        raise BadInputError(f"{where} was made from other images than these; score them again.")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `mine_hard_negatives`."""
    parser = argument_parser("Mine the galaxies that a generation takes for lenses and that are none.")
    parser.add_argument("--scores", required=True, type=Path, help="scores of the parent sample's training split")
    parser.add_argument("--packed", required=True, type=Path, help="packed.json of the galaxies that were scored")
    parser.add_argument("--lenses", required=True, type=Path, help="lenses.json, whose lenses are left out")
    parser.add_argument("--data-root", help="where the images go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path, help="hard_negatives.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, MiningSettings)
    scores, packed = load_manifest(arguments.scores, "scores"), load_manifest(arguments.packed, PACKED)
    check_scores(scores, packed, str(arguments.scores))
    lenses = read_lens_positions(load_manifest(arguments.lenses, "lenses"))
    inputs = [arguments.scores, arguments.packed, arguments.lenses]
    with attempt(arguments.output, KIND, MODULE, settings, inputs, arguments.data_root) as work:
        with Progress(scores.rows_out or 0, "Mining (scores)") as progress:
            found = winners(verified_paths(scores), lenses, settings, progress.advance)
        taken = found.rows
        schema = write_mined(packed, taken, work.prefix)
        shortfall = settings.top_k - taken.num_rows
        work.publish(
            rows_out=taken.num_rows,
            columns={field.name: str(field.type) for field in schema},
            facts={
                "generation": scores.facts.get("generation"),
                "model_sha256": scores.facts.get("model_sha256"),
                "packed_sha256": packed.sha256,
                "split": SPLIT,
                "size": packed.facts["size"],
                "bands": packed.facts["bands"],
                "counts": found.counts,
                "shortfall": shortfall,
                "lowest_score": taken["score"][-1].as_py() if taken.num_rows else None,
            },
        )
    _logger.info("%d hard negatives of %d scores", taken.num_rows, found.counts["scored"])
    if shortfall:
        _logger.warning(
            "%d hard negatives fewer than the %d asked for: no more galaxies reach the score %g.",
            shortfall,
            settings.top_k,
            settings.min_score,
        )


if __name__ == "__main__":
    run(main)
