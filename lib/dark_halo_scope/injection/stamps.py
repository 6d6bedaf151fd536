"""Injected stamps: every task's positive, control and hard negative, cut out of the coadds.

    manifest.json, coadds.json, survey.json -> stamps.json, `stamps-{split}-{file}-{part}.parquet`

Each manifest file holds all rows of its bricks, so that it is one unit of work: its bricks are opened once each, and a
host's pixels are read once for all its tasks. Which rows share an output file follows from the data alone, and rows
are sorted by task_id: any number of cores or partitions gives the same bytes.

A task whose cutout fails keeps its row, with cutout_ok = 0, the reason in `cutout_reason`, and no stamps.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core import storage
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError
from dark_halo_scope.core.manifest import (
    Manifest,
    ObjectEntry,
    attempt,
    load_manifest,
    object_list,
    verified_path,
    write_object,
)
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.injection.arcs import NoSignalError, Row, add_noise, make_arc, psfs_of
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.priors import magnitude_weight
from dark_halo_scope.injection.schema import (
    BANDS,
    BLOB_COLUMNS,
    encode_stamp,
    hard_negative_column,
    stamp_schema,
)
from dark_halo_scope.injection.sources import SourceBank, open_bank
from dark_halo_scope.injection.stamp_config import SourceBankSettings, StampSettings
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.cache_coadds import load_brick
from dark_halo_scope.survey.coadds import BrickCoadds, Cutout
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.names import PIXEL_SCALE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.injection.stamps"

_POLL_S = 1.0


@dataclass(frozen=True)
class Host:
    """A host's pixels, ready for an injection.

    image, invvar: (B, H, W) nanomaggies and 1/nanomaggy^2 per pixel, finite, invvar >= 0.
    psfsize: (B,) arcsec at the target, > 0.
    good_r: (H, W) pixels whose r mask bits are clean.
    centre: x, y of the host in the stamp's frame, arcsec; at most half a pixel from 0 along each axis.
    """

    image: npt.NDArray[np.float32]
    invvar: npt.NDArray[np.float32]
    psfsize: npt.NDArray[np.float32]
    good_r: npt.NDArray[np.bool_]
    centre: tuple[float, float]
    bad_pixel_frac: float
    wise_brightmask_frac: float


class CutoutError(Exception):
    """Why a target has no usable pixels; becomes `cutout_reason`."""


def cut_host(coadds: BrickCoadds, x: float, y: float, size: int, settings: StampSettings) -> Host:
    """The pixels of a host at brick coordinates x, y (zero-based pixels).

    Raises:
        CutoutError: off the brick's edge, no psfsize, or too few usable pixels in a band.
    """
    try:
        cutout = coadds.cutout(x, y, size)
    except BadInputError as error:
        raise CutoutError("off the edge of the brick") from error
    return checked_host(cutout, x, y, settings)


def checked_host(cutout: Cutout, x: float, y: float, settings: StampSettings) -> Host:
    """See `cut_host`."""
    for band, psfsize in zip(BANDS, cutout.psfsize.tolist(), strict=True):
        if not (np.isfinite(psfsize) and psfsize > 0):
            raise CutoutError(f"psfsize {psfsize:g} in {band}")
    finite = np.isfinite(cutout.image)
    usable = finite & np.isfinite(cutout.invvar) & (cutout.invvar > 0)
    for band, plane_finite, plane_usable in zip(BANDS, finite, usable, strict=True):
        if not plane_finite.any():
            raise CutoutError(f"no finite pixel in {band}")
        if not plane_usable.any():
            raise CutoutError(f"no weight in {band}")
        if plane_usable.mean() < settings.min_good_fraction:
            raise CutoutError(f"too few usable pixels in {band}")
    size = cutout.image.shape[-1]
    bad = _has_bits(cutout.maskbits, settings.bad_maskbits)
    return Host(
        image=np.where(finite, cutout.image, np.float32(0.0)),
        invvar=np.where(usable, cutout.invvar, np.float32(0.0)),
        psfsize=cutout.psfsize,
        good_r=~bad,
        centre=(
            (x - cutout.x0 - (size - 1) / 2) * PIXEL_SCALE,
            (y - cutout.y0 - (size - 1) / 2) * PIXEL_SCALE,
        ),
        bad_pixel_frac=float(bad.mean()),
        wise_brightmask_frac=float(_has_bits(cutout.maskbits, settings.wise_maskbits).mean()),
    )


def inject_brick(
    rows: pa.Table,
    coadds: BrickCoadds | None,
    bank: SourceBank | None,
    settings: StampSettings,
    manifest_settings: ManifestSettings,
) -> pa.Table:
    """All stamps of one brick.

    Args:
        rows: of the manifest, all of this brick.
        coadds: the brick's; None where they are not to be had.
        bank: of source galaxies; None where no row names one.
        settings: of the stamps.
        manifest_settings: those that the manifest was made with.

    Returns:
        `stamp_schema`, one row per row, in their order.

    Raises:
        BadInputError: a row that no renderer understands.
        CorruptDataError: pixels that do not decompress.
    """
    # Rows of one host follow one another, so that its pixels are read once.
    order = pc.sort_indices(rows, sort_keys=[("ra", "ascending"), ("dec", "ascending"), ("task_id", "ascending")])
    ordered = rows.take(order).to_pylist()
    if coadds is None:
        finished = [_failed(row, settings, "coadds missing") for row in ordered]
    else:
        finished = list(_injected(ordered, coadds, bank, settings, manifest_settings))
    schema = stamp_schema(settings.hard_negatives.extra)
    stamps = pa.Table.from_pylist(finished, schema=schema)
    back = np.empty(len(order), dtype=np.int64)
    back[order.to_numpy()] = np.arange(len(order))
    return stamps.take(pa.array(back))


def _injected(
    rows: Sequence[Row],
    coadds: BrickCoadds,
    bank: SourceBank | None,
    settings: StampSettings,
    manifest_settings: ManifestSettings,
) -> Iterator[dict[str, Any]]:
    x, y = coadds.sky_to_pixel([row["ra"] for row in rows], [row["dec"] for row in rows])
    last: tuple[float, float, int] | None = None
    host: Host | CutoutError = CutoutError("no target")
    control = b""
    for row, column, line in zip(rows, x.tolist(), y.tolist(), strict=True):
        target = (row["ra"], row["dec"], row["stamp_size"])
        if target != last:
            last = target
            try:
                host = cut_host(coadds, column, line, row["stamp_size"], settings)
                control = encode_stamp(host.image, level=settings.npz_level)
            except CutoutError as error:
                host = error
        if isinstance(host, CutoutError):
            yield _failed(row, settings, str(host))
            continue
        try:
            yield _finished(row, host, control, bank, settings, manifest_settings)
        except NoSignalError:
            yield _failed(row, settings, "no signal of the arc")


def _finished(
    row: Row,
    host: Host,
    control: bytes,
    bank: SourceBank | None,
    settings: StampSettings,
    manifest_settings: ManifestSettings,
) -> dict[str, Any]:
    psfs = psfs_of(host.psfsize.tolist(), settings.psf)
    values = _common(row, settings) | {
        "cutout_ok": 1,
        "metrics_ok": 1,
        "bad_pixel_frac": host.bad_pixel_frac,
        "wise_brightmask_frac": host.wise_brightmask_frac,
        "host_offset_x_arcsec": host.centre[0],
        "host_offset_y_arcsec": host.centre[1],
        "sampling_weight": row["sampling_weight"],
    }
    if row["is_control"]:
        return values | {"stamp_npz": control}
    arc = make_arc(row, host.centre, psfs, host.invvar, host.good_r, bank, settings, PIXEL_SCALE)
    noisy = add_noise(arc, host.invvar, int(row["task_seed64"]), settings.shot_noise, PIXEL_SCALE)
    if row["target_arc_snr"] is not None:
        magnitude = arc.measures["src_mag_r"]
        weight = magnitude_weight(magnitude, manifest_settings, row["src_reff_arcsec"])
        values["sampling_weight"] = float(weight)
    blobs = {"stamp_npz": noisy.image, "hardneg_stamp_npz": noisy.shuffled}
    blobs |= {hard_negative_column(kind): image for kind, image in noisy.extra.items()}
    return (
        values
        | dict(arc.measures)
        | {f"psf_fwhm_used_{band}": psf.fwhm for band, psf in zip(BANDS, psfs, strict=True)}
        | {name: encode_stamp(host.image + image, level=settings.npz_level) for name, image in blobs.items()}
        | {"ctrl_stamp_npz": control}
    )


def _common(row: Row, settings: StampSettings) -> dict[str, Any]:
    """Columns that a stamp takes over from its manifest row."""
    names = stamp_schema(settings.hard_negatives.extra).names
    return {name: row.get(name) for name in names} | {"metrics_only": 0, "cutout_reason": None}


def _failed(row: Row, settings: StampSettings, reason: str) -> dict[str, Any]:
    return _common(row, settings) | {"cutout_ok": 0, "metrics_ok": 0, "physics_valid": 0, "cutout_reason": reason}


def _has_bits(maskbits: npt.NDArray[np.integer], bits: Iterable[int]) -> npt.NDArray[np.bool_]:
    return (maskbits & sum(1 << bit for bit in bits)) != 0


# --- Files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What every unit of work needs; small, and sent to the executors."""

    manifest: Manifest
    coadds: Manifest
    survey: SurveyDescription
    settings: StampSettings
    target: str

    @property
    def manifest_settings(self) -> ManifestSettings:
        return ManifestSettings.model_validate(self.manifest.facts["settings"])


@dataclass(frozen=True)
class Written:
    """One output file, or why there is none."""

    entry: ObjectEntry | None
    split: str
    rows: int
    reasons: Mapping[str, int]
    error: DarkHaloScopeError | None = None


def parts_of(bricks: Sequence[str], rows_per_file: int) -> list[list[str]]:
    """Whole bricks, in order of name, to parts that are full once they have `rows_per_file` rows.

    Args:
        bricks: the brick of every row.
    """
    parts: list[list[str]] = []
    held = rows_per_file
    for brick, count in sorted(Counter(bricks).items()):
        if held >= rows_per_file:
            parts.append([])
            held = 0
        parts[-1].append(brick)
        held += count
    return parts


def inject_file(name: str, job: Job) -> list[Written]:
    """All stamp files of one manifest file; runs in a Spark task.

    An error that a user should read comes back as a value: Spark would bury it in a stack trace.
    """
    try:
        return list(_inject_file(name, job))
    except DarkHaloScopeError as error:
        return [Written(None, "", 0, {}, error)]


def _inject_file(name: str, job: Job) -> Iterator[Written]:
    tasks = pq.read_table(verified_path(job.manifest, name))
    stem = PurePosixPath(name).stem.removeprefix("manifest-")
    split = stem.rpartition("-")[0]
    bank = _bank_of(job.survey.model_dump_json(), job.settings.sources) if _names_galaxies(tasks) else None
    missing = {item["brickname"] for item in job.coadds.facts["missing"]}
    bricks = tasks["brickname"].to_pylist()
    for number, part in enumerate(parts_of(bricks, job.settings.rows_per_file)):
        tables = []
        for brick in part:
            rows = tasks.filter(pc.equal(tasks["brickname"], brick))
            if brick in missing:
                tables.append(inject_brick(rows, None, bank, job.settings, job.manifest_settings))
                continue
            with load_brick(job.coadds, brick) as coadds:
                tables.append(inject_brick(rows, coadds, bank, job.settings, job.manifest_settings))
        stamps = pa.concat_tables(tables).sort_by("task_id")
        entry = write_object(job.target, f"stamps-{stem}-{number:03d}.parquet", parquet_bytes(stamps))
        reasons = Counter(reason for reason in stamps["cutout_reason"].to_pylist() if reason)
        yield Written(entry, split, stamps.num_rows, dict(reasons))


def parquet_bytes(stamps: pa.Table) -> bytes:
    """A stamp file: blobs as they are (they are compressed already, or not worth it), the rest with zstd."""
    blobs = {name for name in stamps.column_names if name.endswith("_npz")}
    rest = [name for name in stamps.column_names if name not in blobs]
    buffer = BytesIO()
    pq.write_table(
        stamps,
        buffer,
        compression={name: "none" if name in blobs else "zstd" for name in stamps.column_names},
        use_dictionary=rest,
        write_statistics=rest,
        row_group_size=256,
    )
    return buffer.getvalue()


def open_survey_bank(survey: SurveyDescription, settings: SourceBankSettings) -> SourceBank:
    """The survey's source bank, every file checked or fetched on first use."""
    uri = survey.files.sources
    folder = uri.rpartition("/")[0]
    return open_bank(survey.verified(uri), settings, lambda name: survey.verified(f"{folder}/{name}"))


@lru_cache(maxsize=1)
def _bank_of(survey: str, settings: SourceBankSettings) -> SourceBank:
    """A process that injects one manifest file after the other keeps the galaxies that it has read."""
    return open_survey_bank(SurveyDescription.model_validate_json(survey), settings)


def _names_galaxies(tasks: pa.Table) -> bool:
    return bool(pc.any(pc.equal(tasks["source_mode"], "image")).as_py())


def _collect(spark: "SparkSession", names: Sequence[str], job: Job) -> list[Written]:
    """Run `inject_file` on every manifest file, one Spark task each, and show how far it is."""
    context = spark.sparkContext
    work = context.parallelize(names, len(names)).flatMap(lambda name: inject_file(name, job))
    with ThreadPoolExecutor(1) as pool, Progress(len(names), "Injecting (manifest files)") as progress:
        running = pool.submit(work.collect)
        while not running.done():
            time.sleep(_POLL_S)
            stages = [context.statusTracker().getStageInfo(i) for i in context.statusTracker().getActiveStageIds()]
            finished = sum(stage.numCompletedTasks for stage in stages if stage is not None)
            progress.advance(max(0, finished - progress.done))
        written = running.result()
        progress.advance(len(names) - progress.done)
        return written


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `inject_stamps`."""
    parser = argument_parser("Inject arcs: every task's positive, control and hard negative.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json, whose file `sources` is the bank")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json")
    parser.add_argument("--coadds", type=Path, required=True, help="coadds.json of the manifest's bricks")
    parser.add_argument("--output", type=Path, required=True, help="stamps.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, StampSettings)
    manifest, coadds = load_manifest(args.manifest, "manifest"), load_manifest(args.coadds, "coadds")
    survey = load_survey(args.survey)
    names = [entry.name for entry in object_list(manifest) if entry.name.endswith(".parquet")]
    if not names:
        raise BadInputError(f"{args.manifest} holds no tasks; look at the selection of the parent sample.")
    inputs = [args.survey, args.manifest, args.coadds]
    with (
        attempt(args.output, "stamps", MODULE, settings, inputs, args.data_root) as work,
        spark_session(args.spark_master, "inject_stamps") as spark,
    ):
        target = str(work.prefix) if storage.is_local(work.uri) else work.uri
        written = _collect(spark, names, Job(manifest, coadds, survey, settings, target))
        for item in written:
            if item.error is not None:
                raise item.error
        reasons: Counter[str] = Counter()
        splits: Counter[str] = Counter()
        for item in written:
            reasons.update(item.reasons)
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
            },
            objects=sorted((item.entry for item in written if item.entry), key=lambda entry: entry.name),
        )
        logger.info("%d stamps, %d of them failed: %s", rows, sum(reasons.values()), dict(reasons))


if __name__ == "__main__":
    run(main)
