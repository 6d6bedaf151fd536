"""One brick of the embedded survey: drawn, observed, catalogued and written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.survey.config import MiniSettings
from dark_halo_scope.survey.grid import BrickBox
from dark_halo_scope.survey.mini.catalogue import measure
from dark_halo_scope.survey.mini.conditions import draw_conditions
from dark_halo_scope.survey.mini.draw import add_stamp, draw_scene
from dark_halo_scope.survey.mini.files import brick_wcs, write_coadd
from dark_halo_scope.survey.mini.lenses import Arc, catalogue_entries, draw_arc
from dark_halo_scope.survey.mini.masks import draw_maskbits, saturated_pixels
from dark_halo_scope.survey.mini.populations import Placer, draw_objects
from dark_halo_scope.survey.mini.profiles import SkyObject
from dark_halo_scope.survey.names import BANDS
from dark_halo_scope.survey.units import depth_magnitude, magnitude

TRUTH_DTYPE = np.dtype(
    [
        *(("BRICKNAME", "S8"), ("OBJID", "i4"), ("KIND", "S10"), ("RA", "f8"), ("DEC", "f8"), ("REDSHIFT", "f4")),
        *(("THETA_E", "f4"), ("Z_SOURCE", "f4"), ("CONFIRMED", "?")),
        *(("ARC_MAG_R", "f4"), ("ARC_SNR", "f4"), ("MU", "f4")),
    ]
)
"""What was drawn at each catalogue row; the lens columns are NaN elsewhere. No survey has it, so no rule reads it."""

SUMMARY_DTYPE = np.dtype(
    [("BRICKNAME", "S8"), ("RA", "f8"), ("DEC", "f8"), ("EBV", "f4"), ("NOBJS", "i2")]
    + [(f"{what}_{band.upper()}", "f4") for what in ("PSFSIZE", "PSFDEPTH", "GALDEPTH") for band in BANDS]
    + [(f"NEXP_{band.upper()}", "i2") for band in BANDS]
)
"""survey-bricks-dr10-south: depths are magnitudes here."""


@dataclass(frozen=True)
class BrickTask:
    """What a worker needs to draw a brick; nothing random but what `seed` starts."""

    settings: MiniSettings
    index: int
    lenses: tuple[bool, ...]
    """One entry per lens of this brick: whether it is confirmed."""
    brick: BrickBox
    root: Path
    """Where `<AAA>/<brick>/` goes."""


@dataclass(frozen=True)
class BrickRows:
    """Table rows of one brick."""

    sweep: NDArray
    photoz: NDArray
    truth: NDArray
    summary: NDArray


def build_brick(task: BrickTask) -> BrickRows:
    """Draw and write one brick; the result depends on the task alone, not on process or order."""
    rng = np.random.default_rng([task.settings.seed, 1, task.index])
    pixels, brick = task.settings.pixels, task.brick
    conditions = draw_conditions(rng, pixels)
    placer = Placer(rng, pixels)
    arcs = [draw_arc(rng, placer.apart(), conditions.ebv, conditions.psf_fwhm, confirmed) for confirmed in task.lenses]
    objects = draw_objects(rng, task.settings, conditions.ebv, placer)
    entries = [catalogue_entries(rng, arc) for arc in arcs]
    objects += [entry for group in entries for entry in group]

    light = draw_scene(objects, conditions.psf_fwhm, (pixels, pixels))
    for arc in arcs:
        for band in range(len(BANDS)):
            add_stamp(light[band], arc.light[band], arc.x0, arc.y0)
    saturated = saturated_pixels(light, objects)
    maskbits = draw_maskbits(conditions, saturated, objects)
    variance = np.where(saturated, np.inf, conditions.variance(light))
    invvar = 1.0 / variance
    # Where every exposure is flagged the coadd shows what the flagged pixels hold, without a weight.
    sigma = np.where(
        np.isfinite(variance), np.sqrt(variance, where=np.isfinite(variance), out=np.zeros_like(variance)), 0
    )
    image = light + sigma * rng.standard_normal(light.shape)
    image[conditions.nexp == 0] = 0.0

    wcs = brick_wcs(brick, pixels)
    sweep, photoz, kept = measure(rng, objects, conditions, variance, maskbits, wcs, brick)
    for band, name in enumerate(BANDS):
        write_coadd(task.root, brick, f"image-{name}", image[band].astype(np.float32))
        write_coadd(task.root, brick, f"invvar-{name}", invvar[band].astype(np.float32))
        psfsize = np.where(conditions.nexp[band] > 0, conditions.psfsize[band], 0.0).astype(np.float32)
        write_coadd(task.root, brick, f"psfsize-{name}", psfsize)
    wise = {f"WISEM{band}": ((maskbits >> (7 + band)) & 1).astype(np.uint8) for band in (1, 2)}
    write_coadd(task.root, brick, "maskbits", maskbits, extra=wise)
    return BrickRows(sweep, photoz, _truth(sweep, kept, objects, arcs, invvar), _summary(sweep, brick))


def _truth(
    sweep: NDArray, kept: list[SkyObject], objects: list[SkyObject], arcs: list[Arc], invvar: NDArray[np.float64]
) -> NDArray:
    out = np.zeros(len(sweep), dtype=TRUTH_DTYPE)
    for name in ("BRICKNAME", "OBJID", "RA", "DEC"):
        out[name] = sweep[name]
    out["KIND"] = [o.kind for o in kept]
    out["REDSHIFT"] = [o.redshift for o in kept]
    for name in ("THETA_E", "Z_SOURCE", "ARC_MAG_R", "ARC_SNR", "MU"):
        out[name] = np.nan
    arc_at = {(arc.host.x, arc.host.y): arc for arc in arcs}
    for i, o in enumerate(kept):
        if o.kind == "lens":
            arc = arc_at[o.x, o.y]
            size = arc.light.shape[-1]
            weight = invvar[:, max(arc.y0, 0) : arc.y0 + size, max(arc.x0, 0) : arc.x0 + size]
            out["THETA_E"][i], out["Z_SOURCE"][i], out["MU"][i] = arc.theta_e, arc.source_redshift, arc.magnification
            out["CONFIRMED"][i] = arc.confirmed
            out["ARC_MAG_R"][i] = magnitude(arc.flux[1])
            out["ARC_SNR"][i] = np.sqrt(np.sum(arc.light**2 * weight))
    return out


def _summary(sweep: NDArray, brick: BrickBox) -> NDArray:
    out = np.zeros(1, dtype=SUMMARY_DTYPE)
    out["BRICKNAME"], out["RA"], out["DEC"], out["NOBJS"] = str(brick.name), brick.ra, brick.dec, len(sweep)
    out["EBV"] = np.median(sweep["EBV"])
    for band in (b.upper() for b in BANDS):
        covered = sweep[sweep[f"NOBS_{band}"] > 0]
        out[f"NEXP_{band}"] = np.median(covered[f"NOBS_{band}"])
        out[f"PSFSIZE_{band}"] = np.median(covered[f"PSFSIZE_{band}"])
        for what in ("PSFDEPTH", "GALDEPTH"):
            out[f"{what}_{band}"] = depth_magnitude(np.median(covered[f"{what}_{band}"]))
    return out
