"""The stamps of one brick: hosts cut out of its coadds, arcs added. Pure functions, without Spark and without files.

Bands are g, r, z (B = 3); a stamp is H = W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
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
    UNPAIRED,
    encode_stamp,
    hard_negative_column,
    stamp_schema,
)
from dark_halo_scope.injection.sources import SourceBank
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.coadds import BrickCoadds, Cutout
from dark_halo_scope.survey.names import PIXEL_SCALE

# The survey compresses tiles of 100 x 100 pixels, and a stamp touches nearly three: with more targets than this makes
# tiles, reading the brick whole is the shorter way.
_TILE_PIXELS = 100 * 100
_TILES_PER_TARGET = 3


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
        targets = len({(row["ra"], row["dec"]) for row in ordered})
        if targets * _TILES_PER_TARGET * _TILE_PIXELS > coadds.shape[0] * coadds.shape[1]:
            coadds.load()
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
        return values | {"stamp_npz": control, "control_kind": UNPAIRED}
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
        | {
            "ctrl_stamp_npz": control,
            "theta_e_arcsec_true": row["theta_e_arcsec"],
            "hard_negative_kind": SHUFFLED_IN_RINGS,
        }
    )


def _common(row: Row, settings: StampSettings) -> dict[str, Any]:
    """Columns that a stamp takes over from its manifest row."""
    names = stamp_schema(settings.hard_negatives.extra).names
    return {name: row.get(name) for name in names} | {"metrics_only": 0, "cutout_reason": None}


def _failed(row: Row, settings: StampSettings, reason: str) -> dict[str, Any]:
    return _common(row, settings) | {"cutout_ok": 0, "metrics_ok": 0, "physics_valid": 0, "cutout_reason": reason}


def _has_bits(maskbits: npt.NDArray[np.integer], bits: Iterable[int]) -> npt.NDArray[np.bool_]:
    return (maskbits & sum(1 << bit for bit in bits)) != 0
