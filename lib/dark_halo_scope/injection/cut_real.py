"""Cutouts of real lenses and of galaxies that are none, all by one path.

    manifest.json, coadds.json (or survey.json) -> stamps.json, `stamps-galaxies-{file}-{split}-{part}.parquet`

`real.path` says where pixels are from: `coadds` and `stored` on Spark, `service` one request at a time. What is killed
goes on where it was: with the files that were written (coadds), or from the cache of answers (service). `stamp_npz` is
an NPZ by the plan's keys that loads without pickle. A row whose cutout fails or is not usable stays, with
cutout_ok = 0, the reason, and no stamp.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, StorageError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, object_list
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.injection.negatives import Cut, Unit, cut_units, write_unit
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.real_stamps import (
    REAL_STAMP_SCHEMA,
    RealJob,
    cut_real_file,
    service_stamps,
)
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import failed_cutouts
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings
from dark_halo_scope.survey.cutout_service import Cutout, CutoutClient, NoCutout, fetch_list, open_client
from dark_halo_scope.survey.description import load_survey
from dark_halo_scope.survey.names import PIXEL_SCALE

MODULE = "dark_halo_scope.injection.cut_real"
KIND = "stamps"

_logger = logging.getLogger(__name__)


def cut_from_service(names: Sequence[str], job: RealJob, client: CutoutClient) -> list[Cut]:
    """Stamps of all manifest files from the cutout service, one request after the other.

    Raises:
        StorageError: the service is down, or kept back more than its settings allow; what came is in the cache.
    """
    failed: Counter[str] = Counter()
    with Progress(job.galaxies.rows_out or 0, "Fetching cutouts") as progress:

        def answers(rows: pa.Table) -> Iterator[Cutout | NoCutout]:
            ra, dec = rows["ra"].to_pylist(), rows["dec"].to_pylist()
            for answer in fetch_list(client, ra, dec, job.real.size, progress):
                if isinstance(answer, NoCutout) and answer.by_service:
                    failed.update([answer.reason])
                yield answer

        def cut(unit: Unit) -> Cut:
            return write_unit(unit, job.target, REAL_STAMP_SCHEMA, service_stamps(unit.rows, answers, job))

        cuts = [one for name in names for one in cut_units(name, job.galaxies, job.stamps.rows_per_file, cut)]
    rows = sum(one.rows for one in cuts)
    if failed.total() > client.settings.max_failed * rows:
        raise StorageError(
            f"{failed.total()} of {rows} cutouts failed by fault of the service ({dict(sorted(failed.items()))}) and "
            f"{client.settings.max_failed:.1%} may; those that came are kept, run this step again later."
        )
    return cuts


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `cut_real_images`."""
    parser = argument_parser("Cut out real lenses and galaxies that are none, all by one path.")
    add_arguments(parser)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json that lists them")
    parser.add_argument("--coadds", type=Path, help="coadds.json of their bricks, for path: coadds")
    parser.add_argument("--survey", type=Path, help="survey.json, for path: service")
    parser.add_argument("--real-settings", required=True, help="which images the dataset has, as JSON or a path")
    parser.add_argument("--quality-settings", default="{}", help="what a usable cutout is, as JSON or a path")
    parser.add_argument("--service-settings", default="{}", help="the cutout service, as JSON or a path")
    parser.add_argument("--asking", default="{}", help="how politely the service is asked, as JSON or a path")
    parser.add_argument("--cache", type=Path, help="folder of the service's answers (default: beside the output)")
    parser.add_argument("--output", type=Path, required=True, help="stamps.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    stamp_settings = load_settings(args.settings, StampSettings)
    real = load_settings(args.real_settings, RealImageSettings, "--real-settings")
    quality = load_settings(args.quality_settings, CutoutQualitySettings, "--quality-settings")
    galaxies = load_manifest(args.manifest, "galaxies")
    if galaxies.facts.get("path", real.path) != real.path:
        raise BadInputError(f"{args.manifest} was listed for path: {galaxies.facts['path']}; list it again.")
    settings = {
        name: one.model_dump(mode="json")
        for name, one in (("stamps", stamp_settings), ("real", real), ("quality", quality))
    }
    needed = {"coadds": args.coadds, "service": args.survey, "stored": args.manifest}[real.path]
    if needed is None:
        raise BadInputError(f"path: {real.path} needs --{'coadds' if real.path == 'coadds' else 'survey'}; give it.")
    names = [entry.name for entry in object_list(galaxies) if entry.name.endswith(".parquet")]
    inputs = list(dict.fromkeys([args.manifest, needed]))
    # Stored files may have changed since, and the service is asked again for what it failed to give.
    resumable = real.path == "coadds"
    with attempt(args.output, KIND, MODULE, settings, inputs, args.data_root, resumable) as work:
        coadds = load_manifest(args.coadds, "coadds") if real.path == "coadds" else None
        job = RealJob(galaxies, real, stamp_settings, quality, work.target, coadds)
        if real.path == "service":
            service = load_settings(args.service_settings, CutoutServiceSettings, "--service-settings")
            asking = load_settings(args.asking, AskingSettings, "--asking")
            cache = args.cache or args.output.parent / "cutout_cache"
            with open_client(service, load_survey(args.survey), cache, asking) as client:
                cuts = cut_from_service(names, job, client)
        else:
            with spark_session(args.spark_master, "cut_real_images") as spark:
                parts = collect(spark, names, partial(cut_real_file, job=job), "Cutting (files of galaxies)")
            cuts = [item for items in parts for item in items]
        reasons = failed_cutouts(cuts)
        rows = sum(item.rows for item in cuts)
        work.publish(
            rows_in=galaxies.rows_out,
            rows_out=rows,
            rows_quarantined=0,
            columns={field.name: str(field.type) for field in REAL_STAMP_SCHEMA},
            facts=facts(galaxies, real, reasons),
            objects=sorted((item.entry for item in cuts if item.entry), key=lambda entry: entry.name),
        )
    _logger.info("%d real images, %d of them failed: %s", rows, sum(reasons.values()), dict(reasons))


def facts(galaxies: Manifest, real: RealImageSettings, reasons: Counter[str]) -> dict[str, object]:
    """What stamps.json says of a dataset of real images."""
    return {
        "experiment_id": real.experiment_id,
        "splits": galaxies.facts["splits"],
        "cutout_failed": dict(sorted(reasons.items())),
        "blobs": ["stamp_npz"],
        "layout": "cutout_hwc",
        "pairs": False,
        "path": real.path,
        "pixel_scale": PIXEL_SCALE,
        "split_seed": real.split_seed,
    }


if __name__ == "__main__":
    run(main)
