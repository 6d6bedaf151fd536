"""Stored rows as rows of our own stamp files. Pure functions, without Spark and without files.

Pixels are taken over as they are. Columns too, except where the earlier pipeline meant something else by a name:

- `split`, `region_split`, `healpix_128`: of the row's position;
- `arc_snr`, the largest signal x sqrt(invvar) of a pixel, is `arc_snr_maxpix`; 0 says that every pixel was masked, and
  becomes null. `arc_snr` is measured anew (matched filter) where the coadd's weights are known, else null;
- `theta_e_arcsec_true` is the product-average Einstein radius;
- columns that were drawn and never used (a bank galaxy's size, shape and colours) are null;
- `sampling_weight` is 1: nothing was reweighted. Lensed magnitudes are the arc's pixels summed.

What the stored data do not tell and the coadds do not show stays null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.npz import NpzError
from dark_halo_scope.injection.pixel_grid import GridError, Place, edge_difference, find_place
from dark_halo_scope.injection.pixel_shuffle import shuffle_pixels
from dark_halo_scope.injection.schema import (
    BANDS,
    BLOB_COLUMNS,
    SHUFFLED_PIXELS,
    UNPAIRED,
    decode_stamp,
    encode_stamp,
    stamp_schema,
)
from dark_halo_scope.injection.snr import arc_snr, arc_snr_maxpix
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stored import VARIANTS
from dark_halo_scope.injection.stored_audit import audit_row, true_theta_e
from dark_halo_scope.injection.stored_config import StoredSettings
from dark_halo_scope.injection.tasks import hash_fraction, task_seed
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import magnitude

Row = Mapping[str, Any]

FAILED_BEFORE = "failed in the earlier pipeline"
# The listing sees to these; anything else may be null in stored data.
_NEVER_NULL = ("task_id", "brickname", "ra", "dec", "split", "healpix_128", "is_control", "cutout_ok", "replicate")
# The r bits that stored arc_snr left out are those that `inject_stamps` counts as bad, by default.
_BAD_BITS = sum(1 << bit for bit in StampSettings().bad_maskbits)
_R = BANDS.index("r")


class AdoptError(Exception):
    """Why a stored row cannot be used; becomes `cutout_reason`."""


@dataclass(frozen=True)
class Adopted:
    """One row taken over.

    Attributes:
        values: of `adopted_schema`.
        looked_at: its arc was to be laid over one rendered from its parameters.
        audit: of `stored_audit.audit_row`, where the row was looked at and could be rendered.
        maxpix_ratio: stored arc_snr over the same measured here, where the row was looked at and both are positive.
        fully_masked: the stored arc_snr is 0.
    """

    values: Mapping[str, Any]
    looked_at: bool = False
    audit: Mapping[str, float] | None = None
    maxpix_ratio: float | None = None
    fully_masked: bool = False


def adopted_schema() -> pa.Schema:
    """`stamp_schema` with every field nullable but those that the listing guarantees."""
    return pa.schema([field.with_nullable(field.name not in _NEVER_NULL) for field in stamp_schema()])


def adopt_brick(
    rows: Sequence[Row], coadds: BrickCoadds | None, settings: StoredSettings, audited: float
) -> list[Adopted]:
    """Take over stored rows of one brick.

    Args:
        rows: stored columns, and `split` and `healpix_128` of the listing.
        coadds: the brick's; None where they are not to be had.
        audited: fraction of the positives, by a hash of their task_id, that are looked at more closely.

    Returns:
        One for each row, in order.

    Raises:
        CorruptDataError: a coadd does not decompress.
    """
    nowhere = [math.nan] * len(rows)
    x, y = nowhere, nowhere
    if coadds is not None:
        found = coadds.sky_to_pixel([row["ra"] for row in rows], [row["dec"] for row in rows])
        x, y = (values.tolist() for values in found)
    result = []
    for row, column, line in zip(rows, x, y, strict=True):
        try:
            result.append(_adopted(row, coadds, (column, line), settings, audited))
        except (AdoptError, GridError) as error:
            result.append(Adopted(_failed(row, settings, str(error))))
    return result


def _adopted(
    row: Row, coadds: BrickCoadds | None, target: tuple[float, float], settings: StoredSettings, audited: float
) -> Adopted:
    if row["cutout_ok"] != 1:
        raise AdoptError(FAILED_BEFORE)
    positive = _pixels(row, "stamp_npz")
    is_control = row["is_control"] == 1
    control = positive if is_control else _pixels(row, "ctrl_stamp_npz") if row.get("ctrl_stamp_npz") else None
    place = _place(positive if control is None else control, coadds, target, settings)
    if control is None:
        if settings.controls == "stored":
            raise AdoptError("no stored control")
        if place is None:
            raise AdoptError("coadds missing")
        control = np.where(np.isfinite(place.image), place.image, np.float32(0.0))
    size = positive.shape[-1]
    values = _common(row, settings) | {"cutout_ok": 1, "cutout_reason": None, "stamp_size": size}
    values["stamp_npz"] = encode_stamp(positive, level=0)
    centre: tuple[float, float] | None = None
    if place is not None:
        centre = tuple(
            (at - first - (size - 1) / 2) * PIXEL_SCALE for at, first in zip(target, (place.x0, place.y0), strict=True)
        )
        values |= {"psfsize_g": _positive(place.psfsize[0]), "psfsize_z": _positive(place.psfsize[2])}
        values |= dict(zip(("host_offset_x_arcsec", "host_offset_y_arcsec"), centre, strict=True))
    if is_control:
        return Adopted(values | {"control_kind": UNPAIRED})
    return _pair(row, values, positive, control, place, centre, settings, audited)


def _pair(
    row: Row,
    values: dict[str, Any],
    positive: NDArray[np.float32],
    control: NDArray[np.float32],
    place: Place | None,
    centre: tuple[float, float] | None,
    settings: StoredSettings,
    audited: float,
) -> Adopted:
    difference = edge_difference(positive, control)
    if difference > settings.max_edge_difference:
        raise AdoptError("positive and control differ at the edge")
    arc = positive - control
    theta_e, psfsize = values["theta_e_arcsec_true"], row.get("psfsize_r")
    if psfsize is None and place is not None:
        psfsize = _positive(place.psfsize[_R])
    if theta_e is None or not psfsize or not psfsize > 0:
        raise AdoptError("no Einstein radius or psfsize_r")
    middle = (positive.shape[-1] - 1) / 2
    lens = tuple(middle + offset / PIXEL_SCALE for offset in centre or (0.0, 0.0))
    rng = np.random.default_rng(task_seed(row["task_id"], settings.seed))
    shuffled = shuffle_pixels(
        arc, theta_e / PIXEL_SCALE, psfsize / PIXEL_SCALE, (lens[0], lens[1]), rng, settings.hard_negatives
    )
    if shuffled is None:
        raise AdoptError("too few pixels in the arc's annulus")
    values |= {
        "ctrl_stamp_npz": encode_stamp(control, level=0),
        "hardneg_stamp_npz": encode_stamp(control + shuffled, level=0),
        "hard_negative_kind": SHUFFLED_PIXELS,
        "edge_difference": difference,
    }
    flux_B = arc.sum(axis=(1, 2), dtype=np.float64)
    values |= {
        f"lensed_mag_{band}": float(magnitude(flux)) if flux > 0 else None
        for band, flux in zip(BANDS, flux_B.tolist(), strict=True)
    }
    looked_at = hash_fraction(f"{row['task_id']}|audit") < audited
    ratio = None
    if place is not None:
        invvar = np.where(np.isfinite(place.invvar) & (place.invvar > 0), place.invvar, 0.0)
        values["arc_snr"] = arc_snr(arc, invvar)
        measured = arc_snr_maxpix(arc[_R], invvar[_R], (place.maskbits & _BAD_BITS) == 0)
        stored = values["arc_snr_maxpix"]
        ratio = stored / measured if looked_at and stored and measured > 0 else None
    variant, audit = VARIANTS[settings.variant], None
    if looked_at and variant.sources == "sersic" and centre is not None:
        audit = audit_row(row, arc, centre, variant.psf, settings.audit, PIXEL_SCALE)
    return Adopted(values, looked_at, audit, ratio, row.get("arc_snr") == 0.0)


def _place(
    stamp: NDArray[np.float32], coadds: BrickCoadds | None, target: tuple[float, float], settings: StoredSettings
) -> Place | None:
    """Where the stamp lies; None without coadds, or where stored controls make the place dispensable."""
    if coadds is None:
        return None
    try:
        return find_place(stamp, coadds, *target, settings.search_pixels, settings.max_edge_difference)
    except GridError:
        if settings.controls == "stored":
            return None
        raise


def _pixels(row: Row, column: str) -> NDArray[np.float32]:
    """(B, H, W) of a stored blob, every pixel finite and no band empty."""
    blob = row.get(column)
    if blob is None:
        raise AdoptError("stamp missing")
    try:
        image = decode_stamp(blob, size=row["stamp_size"])
    except NpzError as error:
        raise AdoptError("stamp not readable") from error
    if not np.isfinite(image).all():
        raise AdoptError("pixels not finite")
    empty = [band for band, plane in zip(BANDS, image, strict=True) if not plane.any()]
    if empty:
        raise AdoptError(f"every pixel 0 in {', '.join(empty)}")
    return image


def _common(row: Row, settings: StoredSettings) -> dict[str, Any]:
    """What a row's columns become, whether or not its stamp can be used."""
    variant = VARIANTS[settings.variant]
    convention = settings.theta_e_convention or variant.convention
    values = {name: None if name in BLOB_COLUMNS else row.get(name) for name in stamp_schema().names}
    values |= {
        "region_split": row["split"],
        "metrics_only": 0,
        "arc_snr": None,
        "arc_snr_maxpix": row.get("arc_snr") or None,
        "sampling_weight": 1.0,
    }
    if row["is_control"] == 1:
        return values | {"source_mode": None, "source_id": None}
    index = row.get("cosmos_index")
    values |= {
        "theta_e_arcsec_true": true_theta_e(row["theta_e_arcsec"], row.get("lens_e"), row.get("lens_model"), convention)
        if row["theta_e_arcsec"]
        else None,
        "source_mode": variant.sources,
        "source_id": None if index is None else str(index),
    }
    values |= dict.fromkeys(variant.unused)
    return values | {"src_reff_arcsec": row.get("cosmos_hlr_arcsec") if variant.unused else values["src_reff_arcsec"]}


def _failed(row: Row, settings: StoredSettings, reason: str) -> dict[str, Any]:
    return _common(row, settings) | {"cutout_ok": 0, "metrics_ok": 0, "cutout_reason": reason}


def _positive(value: float) -> float | None:
    return float(value) if np.isfinite(value) and value > 0 else None
