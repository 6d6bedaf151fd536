"""Galaxies of the parent sample as stamps: cut out as hosts and confusers are.

    manifest.json, coadds.json -> stamps.json, `stamps-galaxies-{file}-{split}-{part}.parquet`

A galaxy whose cutout fails keeps its row, with cutout_ok = 0, the reason in `cutout_reason`, and no stamp.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import attempt, load_manifest, object_list
from dark_halo_scope.injection.negatives import CutJob, FileJob, cut_file
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import failed_cutouts
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.names import PIXEL_SCALE

MODULE = "dark_halo_scope.injection.cut_parents"
KIND = "stamps"

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `cut_parent_galaxies`."""
    parser = argument_parser("Cut out galaxies of the parent sample, as hosts are cut out.")
    add_arguments(parser)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json that lists the galaxies")
    parser.add_argument("--coadds", type=Path, required=True, help="coadds.json of the galaxies' bricks")
    parser.add_argument("--output", type=Path, required=True, help="stamps.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, StampSettings)
    manifest, coadds = load_manifest(args.manifest, "galaxies"), load_manifest(args.coadds, "coadds")
    names = [entry.name for entry in object_list(manifest) if entry.name.endswith(".parquet")]
    with (
        attempt(
            args.output, KIND, MODULE, settings, [args.manifest, args.coadds], args.data_root, resumable=True
        ) as work,
        spark_session(args.spark_master, "cut_parent_galaxies") as spark,
    ):
        cut = partial(cut_file, job=FileJob(manifest, CutJob(coadds, settings, work.target)))
        cuts = [item for items in collect(spark, names, cut, "Cutting (files of galaxies)") for item in items]
        reasons = failed_cutouts(cuts)
        rows = sum(item.rows for item in cuts)
        work.publish(
            rows_in=manifest.rows_out,
            rows_out=rows,
            rows_quarantined=0,
            columns={field.name: str(field.type) for field in stamp_schema(settings.hard_negatives.extra)},
            facts={
                "experiment_id": manifest.facts["experiment_id"],
                "splits": manifest.facts["splits"],
                "cutout_failed": dict(sorted(reasons.items())),
                "blobs": ["stamp_npz"],
                "pixel_scale": PIXEL_SCALE,
                "split_seed": manifest.facts["split_seed"],
            },
            objects=sorted((item.entry for item in cuts if item.entry), key=lambda entry: entry.name),
        )
    _logger.info("%d galaxies, %d of them failed: %s", rows, sum(reasons.values()), dict(reasons))


if __name__ == "__main__":
    run(main)
