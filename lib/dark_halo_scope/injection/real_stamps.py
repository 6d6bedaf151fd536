"""Cutouts of real images as stamps: pixels from coadds, from the cutout service or from stored files, and their row.

All rows of a dataset, lenses or not, pass through one of these, and those from coadds through the code that cuts out
hosts of injections: another path would leave its own noise texture, by which a network tells classes apart. Spark's
workers import this module by name.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, Target
from dark_halo_scope.injection.cutout_npz import Value, decode_cutout, encode_cutout
from dark_halo_scope.injection.cutout_quality import QUALITY_FIELDS, measure, why_unusable
from dark_halo_scope.injection.inject import CutoutError, checked_host, cut_pixels
from dark_halo_scope.injection.negatives import Cut, Unit, cut_units, open_bricks, write_unit
from dark_halo_scope.injection.real_config import PixelPath, RealImageSettings
from dark_halo_scope.injection.real_rows import REAL_SCHEMA
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.cutout_service import Cutout as ServiceCutout
from dark_halo_scope.survey.cutout_service import NoCutout

Row = Mapping[str, Any]
Images = NDArray[np.float32]

_BATCH_ROWS = 128
_GALAXY_ID = re.compile(r"[0-9]{4}[mp][0-9]{3}_[0-9]+")

CUTOUT_FIELDS: tuple[pa.Field, ...] = (
    pa.field("cutout_ok", pa.int32(), nullable=False),
    pa.field("cutout_reason", pa.string()),
    pa.field("pixel_path", pa.string(), nullable=False),
    *(
        pa.field(name, pa.float64())
        for name in ("bad_pixel_frac", "wise_brightmask_frac", "host_offset_x_arcsec", "host_offset_y_arcsec")
    ),
    *QUALITY_FIELDS,
    pa.field("stamp_npz", pa.binary()),
)
"""Columns that cutting adds; `pixel_path` says where the pixels are from (coadds, service, stored)."""

REAL_STAMP_SCHEMA = pa.schema([*REAL_SCHEMA, *CUTOUT_FIELDS])

# What an NPZ says of itself, beside its quality.
_META = (
    *("galaxy_id", "brickname", "objid", "ra", "dec", "split", "healpix_128", "label", "tier", "sample_weight"),
    *("pool", "confuser_category", "type", "nobs_z_bin", "psfsize_r", "psfdepth_r", "ebv"),
)


@dataclass(frozen=True)
class Pixels:
    """A cutout as it came.

    image: (3, H, W) nanomaggies per pixel, perhaps not finite.
    values: what else is known of it, by column.
    """

    image: Images
    values: Mapping[str, float]


@dataclass(frozen=True)
class RealJob:
    """What every unit of work needs; small, and sent to the executors. coadds: None where pixels are stored."""

    galaxies: Manifest
    real: RealImageSettings
    stamps: StampSettings
    quality: CutoutQualitySettings
    target: Target
    coadds: Manifest | None = None


def coadd_pixels(coadds: BrickCoadds, x: float, y: float, size: int, settings: StampSettings) -> Pixels:
    """Pixels of a galaxy at brick coordinates x, y, by the rules for hosts of injections.

    Raises:
        CutoutError: off the brick's edge, no psfsize, or too few usable pixels in a band.
    """
    cutout = cut_pixels(coadds, x, y, size)
    host = checked_host(cutout, x, y, settings)
    # As it came, so that pixels that are not finite are counted; a host has zeros in their place.
    return Pixels(
        cutout.image,
        {
            "bad_pixel_frac": host.bad_pixel_frac,
            "wise_brightmask_frac": host.wise_brightmask_frac,
            "host_offset_x_arcsec": host.centre[0],
            "host_offset_y_arcsec": host.centre[1],
        },
    )


def service_pixels(row: Row, cutout: ServiceCutout) -> Pixels:
    """Pixels that the cutout service gave for a row."""
    east = (row["ra"] - cutout.ra + 180.0) % 360.0 - 180.0
    offset = {
        # Right ascension grows to the left.
        "host_offset_x_arcsec": -east * np.cos(np.deg2rad(cutout.dec)) * 3600.0,
        "host_offset_y_arcsec": (row["dec"] - cutout.dec) * 3600.0,
    }
    return Pixels(cutout.image_3HW, offset)


def stored_pixels(row: Row, real: RealImageSettings) -> Pixels:
    """Pixels of a row's stored `{galaxy_id}.npz`; nothing else of the file is opened.

    Raises:
        CutoutError: no such file, not such a file, or of another size.
    """
    folder = real.stored_positives if row["label"] == 1 else real.stored_negatives
    assert folder is not None, "RealImageSettings asks for both"
    name = str(row["galaxy_id"])
    # It becomes part of a path.
    if not _GALAXY_ID.fullmatch(name):
        raise CutoutError("the galaxy_id is not brick_objid")
    try:
        blob = storage.read_bytes(storage.join(folder, f"{name}.npz"))
    except BadInputError as error:
        raise CutoutError("no stored cutout") from error
    try:
        image = decode_cutout(blob)
    except ValueError as error:  # NpzError is one
        raise CutoutError("the stored cutout is not readable") from error
    if image.shape[1:] != (row["stamp_size"],) * 2:
        raise CutoutError("the stored cutout has another size")
    return Pixels(image, {})


def finished(row: Row, pixels: Pixels | CutoutError, path: PixelPath, job: RealJob) -> dict[str, Any]:
    """What cutting adds to a row; a cutout that is not usable has a reason and no stamp."""
    values: dict[str, Any] = {"cutout_ok": 0, "cutout_reason": None, "pixel_path": path, "quality_ok": 0}
    if isinstance(pixels, CutoutError):
        return values | {"cutout_reason": str(pixels)}
    found = measure(pixels.image, job.quality)
    values |= dict(pixels.values) | found
    reason = why_unusable(found, job.quality)
    if reason is not None:
        return values | {"cutout_reason": reason}
    image = np.where(np.isfinite(pixels.image), pixels.image, np.float32(0.0))
    meta: dict[str, Value] = {name: _told(row[name], REAL_SCHEMA.field(name).type) for name in _META}
    meta |= {"pixel_path": path, **found}
    return values | {"cutout_ok": 1, "stamp_npz": encode_cutout(image, meta, job.stamps.npz_level)}


def _told(value: Value, dtype: pa.DataType) -> Value:
    return "" if value is None and pa.types.is_string(dtype) else value


def _tables(rows: pa.Table, outcomes: Iterable[dict[str, Any]]) -> pa.Table:
    added = pa.Table.from_pylist(list(outcomes), schema=pa.schema(CUTOUT_FIELDS))
    columns = {**{name: rows[name] for name in REAL_SCHEMA.names}, **{name: added[name] for name in added.column_names}}
    return pa.Table.from_arrays([columns[f.name].combine_chunks() for f in REAL_STAMP_SCHEMA], schema=REAL_STAMP_SCHEMA)


def _in_batches(rows: pa.Table, outcome: Callable[[int, Row], dict[str, Any]]) -> Iterator[pa.Table]:
    for start in range(0, rows.num_rows, _BATCH_ROWS):
        batch = rows.slice(start, _BATCH_ROWS)
        yield _tables(batch, (outcome(place, row) for place, row in enumerate(batch.to_pylist(), start)))


def coadd_stamps(rows: pa.Table, job: RealJob) -> Iterator[pa.Table]:
    """Stamps of whole bricks cut out of their coadds, a few rows at a time."""
    assert job.coadds is not None
    for here, coadds in open_bricks(rows, job.coadds):
        x, y = np.zeros((2, here.num_rows))
        if coadds is not None:
            x, y = coadds.sky_to_pixel(here["ra"].to_numpy(), here["dec"].to_numpy())

        def outcome(
            place: int, row: Row, coadds: BrickCoadds | None = coadds, x: NDArray = x, y: NDArray = y
        ) -> dict[str, Any]:
            try:
                if coadds is None:
                    raise CutoutError("coadds missing")
                pixels = coadd_pixels(coadds, float(x[place]), float(y[place]), row["stamp_size"], job.stamps)
            except CutoutError as error:
                return finished(row, error, "coadds", job)
            return finished(row, pixels, "coadds", job)

        yield from _in_batches(here, outcome)


def stored_stamps(rows: pa.Table, job: RealJob) -> Iterator[pa.Table]:
    """Stamps of stored files, a few rows at a time."""

    def outcome(place: int, row: Row) -> dict[str, Any]:
        try:
            return finished(row, stored_pixels(row, job.real), "stored", job)
        except CutoutError as error:
            return finished(row, error, "stored", job)

    yield from _in_batches(rows.sort_by("task_id"), outcome)


def service_stamps(
    rows: pa.Table, answers: Callable[[pa.Table], Iterator[ServiceCutout | NoCutout]], job: RealJob
) -> Iterator[pa.Table]:
    """Stamps that the cutout service gives, a few rows at a time.

    Args:
        rows: of a unit.
        answers: the service's answers to rows with ra and dec, one after the other.
        job: of the dataset.
    """
    ordered = rows.sort_by([("brickname", "ascending"), ("task_id", "ascending")])
    given = answers(ordered)

    def outcome(place: int, row: Row) -> dict[str, Any]:
        answer = next(given)
        pixels = CutoutError(answer.reason) if isinstance(answer, NoCutout) else service_pixels(row, answer)
        return finished(row, pixels, "service", job)

    yield from _in_batches(ordered, outcome)


def cut_real_unit(unit: Unit, job: RealJob) -> Cut:
    """Cut out the rows of a unit; runs in a Spark task. Errors that a user should read come back as values."""
    make = stored_stamps if job.coadds is None else coadd_stamps
    return write_unit(unit, job.target, REAL_STAMP_SCHEMA, make(unit.rows, job))


def cut_real_file(name: str, job: RealJob) -> list[Cut]:
    """Cut out the rows of one manifest file; runs in a Spark task. Errors come back as values."""
    return cut_units(name, job.galaxies, job.stamps.rows_per_file, partial(cut_real_unit, job=job))
