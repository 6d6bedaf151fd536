"""Stored stamps in the columns of our own: manifest.json (of `list_stored_stamps`), coadds.json -> stamps.json.

Every stamp is read where it lies and checked: its bands, its size, that each pixel is finite and no band empty. A
positive without a stored control gets the coadd's pixels at the stamp's own place, which is found, not computed. A row
that cannot be used keeps its place with cutout_ok = 0 and the reason; too many of them refuse the dataset.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Attempt, Manifest, attempt, load_manifest, object_list
from dark_halo_scope.injection.adopt import FAILED_BEFORE, adopted_schema
from dark_halo_scope.injection.adopt_files import AdoptJob, AdoptReport, adopt_file
from dark_halo_scope.injection.schema import BLOB_COLUMNS
from dark_halo_scope.injection.stored import VARIANTS
from dark_halo_scope.injection.stored_audit import check_audit, check_ratio, ratio_summary, summarise
from dark_halo_scope.injection.stored_config import StoredSettings
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.names import PIXEL_SCALE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MODULE = "dark_halo_scope.injection.adopt_stored"

_logger = logging.getLogger(__name__)


def adopt(spark: "SparkSession", manifest: Manifest, coadds: Manifest, settings: StoredSettings, work: Attempt) -> None:
    """Make and publish stamps.json; see `combined` for what may refuse it."""
    names = [entry.name for entry in object_list(manifest) if entry.name.endswith(".parquet")]
    target = work.target.uri
    job = AdoptJob(manifest, coadds, settings, target, audited_fraction(manifest, settings))
    reports = collect(spark, names, partial(adopt_file, job=job), "Adopting (manifest files)")
    facts = combined(reports, manifest, settings)
    rows = sum(facts["splits"].values())
    work.publish(
        rows_in=manifest.rows_out,
        rows_out=rows,
        rows_quarantined=0,
        columns={field.name: str(field.type) for field in adopted_schema()},
        facts=facts,
        objects=sorted((entry for report in reports for entry in report.entries), key=lambda entry: entry.name),
    )
    failed: dict[str, int] = facts["cutout_failed"]
    _logger.info("%d stored stamps, %d of them failed: %s", rows, sum(failed.values()), failed)


def audited_fraction(manifest: Manifest, settings: StoredSettings) -> float:
    """The share of positives that gives about as many as the audit wants."""
    return settings.audit.rows / max(1, manifest.facts["positives"])


def combined(reports: Sequence[AdoptReport], manifest: Manifest, settings: StoredSettings) -> dict[str, Any]:
    """The facts of stamps.json.

    Raises:
        BadInputError: too many stamps cannot be used, or the arcs are displaced or none could be rendered again.
        CorruptDataError: a stored file changed since it was listed.
    """
    for report in reports:
        if report.error is not None:
            raise report.error
    splits: Counter[str] = sum((report.splits for report in reports), Counter())
    reasons: Counter[str] = sum((report.reasons for report in reports), Counter())
    nulls: Counter[str] = sum((report.nulls for report in reports), Counter())
    _check_failures(reasons, sum(splits.values()), settings)
    convention = settings.theta_e_convention or VARIANTS[settings.variant].convention
    looked_at = sum(report.looked_at for report in reports)
    audit = summarise([one for report in reports for one in report.audits], convention) | {"looked_at": looked_at}
    ratios = ratio_summary([ratio for report in reports for ratio in report.maxpix_ratios])
    found = [check_ratio(ratios, settings.uri)]
    if VARIANTS[settings.variant].sources == "sersic" and settings.audit.rows > 0:
        found.append(check_audit(audit, settings.audit, settings.uri))
    for warning in filter(None, found):
        _logger.warning("%s", warning)
    fits = audit.get("convention_that_fits")
    if fits not in (None, convention):
        _logger.warning("Audited arcs fit theta_e_convention %s, and %s is set.", fits, convention)
    return {
        "splits": dict(sorted(splits.items())),
        "controls": sum(report.controls for report in reports),
        "cutout_failed": dict(sorted(reasons.items())),
        "blobs": list(BLOB_COLUMNS),
        "pixel_scale": PIXEL_SCALE,
        "split_seed": settings.split_seed,
        "stored": manifest.facts["stored"],
        "theta_e_convention": convention,
        "nulls": dict(sorted(nulls.items())),
        "arc_snr_fully_masked": sum(report.fully_masked for report in reports),
        "arc_snr_maxpix_stored_over_measured": ratios,
        "audit": audit,
    }


def _check_failures(reasons: Counter[str], rows: int, settings: StoredSettings) -> None:
    """What failed before was known to whoever made the data; what fails now says that they are not what they seem."""
    failed = {reason: count for reason, count in sorted(reasons.items()) if reason != FAILED_BEFORE}
    tried = rows - reasons[FAILED_BEFORE]
    if sum(failed.values()) > settings.max_failed_fraction * tried:
        raise BadInputError(
            f"{sum(failed.values())} of {tried} stamps of {settings.uri} cannot be used ({failed}), more than "
            f"{settings.max_failed_fraction:.1%}; look whether variant and coadds are those that they were made from."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `adopt_stored_stamps`."""
    parser = argument_parser("Take over the stamps of a dataset that exists already, each of them checked.")
    add_arguments(parser)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of list_stored_stamps")
    parser.add_argument("--coadds", type=Path, required=True, help="coadds.json of the manifest's bricks")
    parser.add_argument("--output", type=Path, required=True, help="stamps.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, StoredSettings)
    manifest, coadds = load_manifest(args.manifest, "manifest"), load_manifest(args.coadds, "coadds")
    if "stored" not in manifest.facts:
        raise BadInputError(f"{args.manifest} lists no stored stamps; make it with list_stored_stamps.")
    inputs = [args.manifest, args.coadds]
    with (
        attempt(args.output, "stamps", MODULE, settings, inputs, args.data_root) as work,
        spark_session(args.spark_master, "adopt_stored_stamps") as spark,
    ):
        adopt(spark, manifest, coadds, settings, work)


if __name__ == "__main__":
    run(main)
