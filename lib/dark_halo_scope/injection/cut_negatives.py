"""Confusers of a dataset: galaxies that look like lenses, cut out as its hosts are.

    confusers.json, stamps.json, coadds.json -> negatives.json, `negatives-{split}-{file}.parquet`

They lie on the bricks of the dataset's coadds, in the split of their cell, and have the stamps' schema: is_control = 1,
control_kind = their class, sampling_weight = galaxies of the class for each one drawn. None of them is a host of the
dataset itself.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.splits import SPLITS
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_path, verified_paths
from dark_halo_scope.injection.negative_config import NegativeSettings
from dark_halo_scope.injection.negatives import (
    CutJob,
    cut_unit,
    describe_dataset,
    draw_confusers,
    negative_rows,
    units,
)
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import failed_cutouts
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.cache_coadds import FILES

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.injection.cut_negatives"
KIND = "negatives"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `cut_negatives`."""
    parser = argument_parser("Cut out the confusers of a dataset, as its hosts are cut out.")
    add_arguments(parser)
    parser.add_argument("--confusers", type=Path, required=True, help="confusers.json of the survey")
    parser.add_argument("--stamps", type=Path, required=True, help="stamps.json that the negatives join")
    parser.add_argument("--coadds", type=Path, required=True, help="coadds.json of the dataset's bricks")
    parser.add_argument("--stamp-settings", required=True, help="the dataset's settings of stamps, as JSON or a path")
    parser.add_argument("--output", type=Path, required=True, help="negatives.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, NegativeSettings)
    stamp_settings = load_settings(args.stamp_settings, StampSettings, "--stamp-settings")
    confusers, stamps = load_manifest(args.confusers, "confusers"), load_manifest(args.stamps, "stamps")
    coadds = load_manifest(args.coadds, "coadds")
    both = {"negatives": settings.model_dump(mode="json"), "stamps": stamp_settings.model_dump(mode="json")}
    inputs = [args.confusers, args.stamps, args.coadds]
    with (
        attempt(args.output, KIND, MODULE, both, inputs, args.data_root, resumable=True) as work,
        spark_session(args.spark_master, "cut_negatives") as spark,
    ):
        dataset = describe_dataset(verified_paths(stamps))
        names = pq.read_table(verified_path(coadds, FILES), columns=["brickname"])["brickname"]
        bricks = frozenset(pc.unique(names).to_pylist())
        draw = draw_confusers(verified_paths(confusers), bricks, dataset, settings)
        rows = negative_rows(draw.rows, dataset)
        todo = list(units(rows, stamp_settings.rows_per_file))
        logger.info("Cutting %d confusers on %d bricks", rows.num_rows, len(bricks))
        job = CutJob(coadds, stamp_settings, work.target)
        cuts = collect(spark, todo, partial(cut_unit, job=job), "Cutting (stamp files)") if todo else []
        reasons = failed_cutouts(cuts)
        in_split = {name: rows.filter(pc.equal(rows["control_kind"], name)) for name in settings.classes}
        classes = {
            name: {split: int(pc.sum(pc.equal(table["split"], split)).as_py() or 0) for split in SPLITS}
            for name, table in in_split.items()
        }
        work.publish(
            rows_in=rows.num_rows,
            rows_out=sum(cut.rows for cut in cuts),
            rows_quarantined=0,
            columns={f.name: str(f.type) for f in stamp_schema(stamp_settings.hard_negatives.extra)},
            facts={
                "classes": classes,
                "already_in_dataset": {name: draw.in_dataset.get(name, 0) for name in settings.classes},
                "cutout_failed": dict(sorted(reasons.items())),
            },
            objects=sorted((cut.entry for cut in cuts if cut.entry), key=lambda entry: entry.name),
        )
        logger.info("%d confusers, %d of them failed: %s", rows.num_rows, sum(reasons.values()), dict(reasons))


if __name__ == "__main__":
    run(main)
