"""Injected stamps: every task's positive, control and hard negative, cut out of the coadds.

    manifest.json, coadds.json, sources.json, survey.json -> stamps.json, `stamps-{split}-{file}-{part}.parquet`

Each manifest file holds all rows of its bricks, so that it is one unit of work: its bricks are opened once each, and a
host's pixels are read once for all its tasks. Which rows share an output file, and their order there (by brick, then by
place in the brick), follow from the data alone: any number of cores or partitions gives the same bytes.

A task whose cutout fails keeps its row, with cutout_ok = 0, the reason in `cutout_reason`, and no stamps.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest, object_list
from dark_halo_scope.injection.schema import BLOB_COLUMNS, hard_negative_column, stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import Job, failed_cutouts, inject_file
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.description import load_survey
from dark_halo_scope.survey.names import PIXEL_SCALE

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.injection.stamps"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `inject_stamps`."""
    parser = argument_parser("Inject arcs: every task's positive, control and hard negative.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json, whose file `sources` is the bank")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json")
    parser.add_argument("--coadds", type=Path, required=True, help="coadds.json of the manifest's bricks")
    parser.add_argument("--sources", type=Path, required=True, help="sources.json of the survey's source bank")
    parser.add_argument("--output", type=Path, required=True, help="stamps.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, StampSettings)
    manifest, coadds = load_manifest(args.manifest, "manifest"), load_manifest(args.coadds, "coadds")
    survey = load_survey(args.survey)
    names = [entry.name for entry in object_list(manifest) if entry.name.endswith(".parquet")]
    if not names:
        raise BadInputError(f"{args.manifest} holds no tasks; look at the selection of the parent sample.")
    sources = load_manifest(args.sources, "sources")
    inputs = [args.survey, args.manifest, args.coadds, args.sources]
    with (
        attempt(args.output, "stamps", MODULE, settings, inputs, args.data_root, resumable=True) as work,
        spark_session(args.spark_master, "inject_stamps") as spark,
    ):
        job = Job(manifest, coadds, survey, settings, work.target, sources)
        inject = partial(inject_file, job=job)
        written = [item for items in collect(spark, names, inject, "Injecting (manifest files)") for item in items]
        reasons = failed_cutouts(written)
        splits: Counter[str] = Counter()
        for item in written:
            splits[item.split] += item.rows
        rows = sum(splits.values())
        work.publish(
            rows_in=manifest.rows_out,
            rows_out=rows,
            rows_quarantined=0,
            columns={field.name: str(field.type) for field in stamp_schema(settings.hard_negatives.extra)},
            facts={
                "experiment_id": manifest.facts.get("experiment_id"),
                "splits": dict(splits),
                "cutout_failed": dict(reasons),
                "blobs": [*BLOB_COLUMNS, *map(hard_negative_column, settings.hard_negatives.extra)],
                "pixel_scale": PIXEL_SCALE,
                "split_seed": job.manifest_settings.split_seed,
            },
            objects=sorted((item.entry for item in written if item.entry), key=lambda entry: entry.name),
        )
        logger.info("%d stamps, %d of them failed: %s", rows, sum(reasons.values()), dict(reasons))


if __name__ == "__main__":
    run(main)
