"""The stamps of one brick: hosts cut out of its coadds, arcs added. Pure functions, without Spark and without files.

Bands are g, r, z (B = 3); a stamp is H = W pixels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.arcs import NoSignalError, Row, add_noise, make_arc, psfs_of
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.priors import magnitude_weight
from dark_halo_scope.injection.schema import (
    BANDS,
    SHUFFLED_IN_RINGS,
    encode_stamp,
    hard_negative_column,
    stamp_schema,
)
from dark_halo_scope.injection.sources import SourceBank
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.coadds import BrickCoadds, Cutout
from dark_halo_scope.survey.names import PIXEL_SCALE

# Rows that are finished at a time: what bounds the memory of a brick with many.
_BATCH_ROWS = 128


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


def cut_pixels(coadds: BrickCoadds, x: float, y: float, size: int) -> Cutout:
    """What the coadds have at brick coordinates x, y (zero-based pixels), as it is.

    Raises:
        CutoutError: off the brick's edge.
        CorruptDataError: a tile does not decompress.
    """
    try:
        return coadds.cutout(x, y, size)
    except BadInputError as error:
        raise CutoutError("off the edge of the brick") from error


def cut_host(coadds: BrickCoadds, x: float, y: float, size: int, settings: StampSettings) -> Host:
    """The pixels of a host at brick coordinates x, y (zero-based pixels).

    Raises:
        CutoutError: off the brick's edge, no psfsize, or too few usable pixels in a band.
        CorruptDataError: a tile does not decompress.
    """
    return checked_host(cut_pixels(coadds, x, y, size), x, y, settings)


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
    manifest_settings: ManifestSettings | None,
) -> pa.Table:
    """All stamps of one brick.

    Args:
        rows: of the manifest, all of this brick.
        coadds: the brick's; None where they are not to be had.
        bank: of source galaxies; None where no row names one.
        settings: of the stamps.
        manifest_settings: those that the manifest was made with; None where no row asks for a signal to noise.

    Returns:
        `stamp_schema`, one row per row, in their order.

    Raises:
        BadInputError: a row that no renderer understands.
        CorruptDataError: pixels that do not decompress.
    """
    order = host_order(rows, coadds)
    ordered = rows.take(pa.array(order))
    stamps = pa.concat_tables(inject_rows(ordered, coadds, bank, settings, manifest_settings))
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return stamps.take(pa.array(back))


def host_order(rows: pa.Table, coadds: BrickCoadds | None) -> npt.NDArray[np.int64]:
    """Places in `rows` in the order of work: neighbours share tiles of the coadds, a host's rows its pixels.

    It follows from the rows and the brick alone.
    """
    if coadds is None:
        place = np.zeros(rows.num_rows, np.int64)
    else:
        place = coadds.place(*coadds.sky_to_pixel(rows["ra"].to_numpy(), rows["dec"].to_numpy()))
    keys = rows.select(["ra", "dec", "task_id"]).append_column("place", pa.array(place))
    names = ("place", "ra", "dec", "task_id")
    return pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in names]).to_numpy().astype(np.int64)


def inject_rows(
    rows: pa.Table,
    coadds: BrickCoadds | None,
    bank: SourceBank | None,
    settings: StampSettings,
    manifest_settings: ManifestSettings | None,
) -> Iterator[pa.Table]:
    """`inject_brick` without its memory: the stamps of rows in `host_order`, a few at a time, in that order."""
    schema = stamp_schema(settings.hard_negatives.extra)
    x, y = np.zeros((2, rows.num_rows))
    if coadds is not None:
        x, y = coadds.sky_to_pixel(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    hosts = _Hosts(coadds, settings)
    for start in range(0, max(rows.num_rows, 1), _BATCH_ROWS):
        batch = rows.slice(start, _BATCH_ROWS)
        finished = []
        for place, row in enumerate(batch.to_pylist(), start):
            host = hosts.at(row, x[place], y[place])
            try:
                if isinstance(host, CutoutError):
                    raise host
                finished.append(_finished(row, host, hosts.control, bank, settings, manifest_settings))
            except CutoutError as error:
                finished.append(_failed(str(error)))
            except NoSignalError:
                finished.append(_failed("no signal of the arc"))
        yield _table(batch, finished, schema)


class _Hosts:
    """The host of the row before, cut and encoded once for all its rows."""

    def __init__(self, coadds: BrickCoadds | None, settings: StampSettings) -> None:
        self._coadds = coadds
        self._settings = settings
        self._target: tuple[float, float, int] | None = None
        self._host: Host | CutoutError = CutoutError("coadds missing")
        self.control = b""

    def at(self, row: Row, x: float, y: float) -> Host | CutoutError:
        target = (row["ra"], row["dec"], row["stamp_size"])
        if self._coadds is not None and target != self._target:
            self._target = target
            try:
                self._host = cut_host(self._coadds, float(x), float(y), row["stamp_size"], self._settings)
                self.control = encode_stamp(self._host.image, level=self._settings.npz_level)
            except CutoutError as error:
                self._host = error
        return self._host


def _table(rows: pa.Table, finished: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Stamps' columns: what was found for a row, else what the manifest says, else null."""
    found = {name for values in finished for name in values}
    columns = []
    for field in schema:
        told = rows[field.name].combine_chunks() if field.name in rows.column_names else None
        if field.name not in found:
            columns.append(pa.nulls(rows.num_rows, field.type) if told is None else told.cast(field.type))
            continue
        defaults = [None] * rows.num_rows if told is None else told.to_pylist()
        pairs = zip(finished, defaults, strict=True)
        columns.append(pa.array([values.get(field.name, default) for values, default in pairs], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _finished(
    row: Row,
    host: Host,
    control: bytes,
    bank: SourceBank | None,
    settings: StampSettings,
    manifest_settings: ManifestSettings | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "cutout_ok": 1,
        "metrics_ok": 1,
        "metrics_only": 0,
        "bad_pixel_frac": host.bad_pixel_frac,
        "wise_brightmask_frac": host.wise_brightmask_frac,
        "host_offset_x_arcsec": host.centre[0],
        "host_offset_y_arcsec": host.centre[1],
    }
    if row["is_control"]:
        return values | {"stamp_npz": control}
    psfs = psfs_of(host.psfsize.tolist(), settings.psf)
    arc = make_arc(row, host.centre, psfs, host.invvar, host.good_r, bank, settings, PIXEL_SCALE)
    noisy = add_noise(arc, host.invvar, int(row["task_seed64"]), settings.shot_noise, PIXEL_SCALE)
    if row["target_arc_snr"] is not None:
        assert manifest_settings is not None, "a row asks for a signal to noise, and nothing says of which prior"
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
        | {
            "ctrl_stamp_npz": control,
            "theta_e_arcsec_true": row["theta_e_arcsec"],
            "hard_negative_kind": SHUFFLED_IN_RINGS,
        }
    )


def _failed(reason: str) -> dict[str, Any]:
    return {"cutout_ok": 0, "metrics_ok": 0, "metrics_only": 0, "physics_valid": 0, "cutout_reason": reason}


def _has_bits(maskbits: npt.NDArray[np.integer], bits: Iterable[int]) -> npt.NDArray[np.bool_]:
    return (maskbits & sum(1 << bit for bit in bits)) != 0
