"""One task's arc: from a manifest row to light in nanomaggies, its ring-shuffled twin, their noise, what they measure.

Bands are g, r, z (B = 3); a stamp is H = W pixels. Positions are arcsec in the stamp's frame: x = column, y = row,
origin at the stamp's centre, ((W - 1)/2, (H - 1)/2).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.clumpy import clumpy_galaxy
from dark_halo_scope.injection.hard_negatives import SHUFFLES, shuffle_in_rings
from dark_halo_scope.injection.noise import poisson
from dark_halo_scope.injection.schema import BANDS
from dark_halo_scope.injection.snr import arc_snr, arc_snr_maxpix
from dark_halo_scope.injection.sources import SourceBank
from dark_halo_scope.injection.stamp_config import PsfSettings, ShotNoiseSettings, StampSettings
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.magnification import stretches
from dark_halo_scope.lensing.psf import Psf, psf_from_psfsize
from dark_halo_scope.lensing.render import FineImage, convolve_bands, fine_grid, render_fine
from dark_halo_scope.lensing.sources import ImageSource, SersicSource, Source

Row = Mapping[str, Any]
Image = npt.NDArray[np.float32]

AB_ZERO_POINT = 22.5
# Numbers that a task draws come from generators of their own, so that one more kind of hard negative moves no other.
(
    _STREAM_POSITIVE_NOISE,
    _STREAM_SHUFFLE,
    _STREAM_SHUFFLED_NOISE,
    _STREAM_EXTRA,
    _STREAM_EXTRA_NOISE,
    _STREAM_CLUMPS,
) = range(6)

# Light in the outermost two pixels, as a share of the whole, above which an arc counts as cut off by the stamp.
_EDGE_PIXELS = 2
_MAX_EDGE_LIGHT = 0.05


class NoSignalError(BadInputError):
    """An arc that no pixel sees; its task is recorded as failed."""


@dataclass(frozen=True)
class Arc:
    """An arc and its hard negatives before noise, (B, H, W) nanomaggies per pixel, and what they measure.

    Attributes:
        image: the arc.
        shuffled: its light shuffled in rings.
        extra: further kinds of hard negatives, by kind.
        fluxes: (B,) unlensed flux, nanomaggies.
        measures: values of the stamp columns that describe the arc.
    """

    image: Image
    shuffled: Image
    extra: Mapping[str, Image]
    fluxes: npt.NDArray[np.float64]
    measures: Mapping[str, Any]


def lens_of(row: Row, centre: tuple[float, float]) -> Lens:
    """The row's lens, at the host's position in the stamp."""
    shear, angle = row["shear"], row["shear_phi_rad"]
    return Lens(
        theta_e=row["theta_e_arcsec"],
        q=_axis_ratio(row["lens_e"]),
        phi=row["lens_phi_rad"],
        g1=shear * math.cos(2.0 * angle),
        g2=shear * math.sin(2.0 * angle),
        x=centre[0],
        y=centre[1],
    )


def source_of(row: Row, centre: tuple[float, float], bank: SourceBank | None) -> Source:
    """The row's source; an image, of a bank's galaxy or a clumpy one, is scaled to the row's half-light radius.

    Raises:
        BadInputError: the row names a galaxy and there is no bank, or no such galaxy, or an unknown kind of source.
    """
    x, y = centre[0] + row["src_x_arcsec"], centre[1] + row["src_y_arcsec"]
    if row["source_mode"] == "sersic":
        return SersicSource(x, y, row["src_reff_arcsec"], row["src_n"], _axis_ratio(row["src_e"]), row["src_phi_rad"])
    if row["source_mode"] == "clumpy":
        rng = np.random.default_rng([int(row["task_seed64"]), _STREAM_CLUMPS])
        galaxy = clumpy_galaxy(rng, _axis_ratio(row["src_e"]))
    elif row["source_mode"] == "image" and row["source_id"] is not None:
        if bank is None:
            raise BadInputError(
                f"Task {row['task_id']} needs source {row['source_id']}, and the survey has no source bank."
            )
        galaxy = bank.galaxy(int(row["source_id"]))
    else:
        raise BadInputError(f"Task {row['task_id']} has the unknown source {row['source_mode']} {row['source_id']}.")
    scale = row["src_reff_arcsec"] / galaxy.half_light_radius
    return ImageSource(x, y, galaxy.image, galaxy.pixel_scale, row["src_phi_rad"], scale)


def _axis_ratio(ellipticity: float) -> float:
    return (1.0 - ellipticity) / (1.0 + ellipticity)


def unlensed_fluxes(row: Row, magnification: float) -> npt.NDArray[np.float64]:
    """(B,) unlensed flux in g, r, z, nanomaggies.

    `src_mag_r` is the unlensed r magnitude; where it is null (`dmag_mode: lensed`), the arc's r magnitude is the host's
    plus `src_dmag`.
    """
    if row["src_mag_r"] is not None:
        flux_r = _flux(row["src_mag_r"])
    else:
        flux_r = _flux(row["rmag"] + row["src_dmag"]) / magnification
    return flux_r * np.array([_flux(AB_ZERO_POINT + row["src_gr"]), 1.0, _flux(AB_ZERO_POINT - row["src_rz"])])


def psfs_of(psfsize: Sequence[float], settings: PsfSettings) -> list[Psf]:
    """The PSF of each band from psfsize at the target, arcsec, > 0."""
    return [psf_from_psfsize(float(size), settings.kind, settings.match, settings.beta) for size in psfsize]


def make_arc(
    row: Row,
    centre: tuple[float, float],
    psfs: Sequence[Psf],
    invvar: npt.NDArray[np.floating],
    good_r: npt.NDArray[np.bool_],
    bank: SourceBank | None,
    settings: StampSettings,
    pixel_scale: float,
) -> Arc:
    """Render a row's arc and its hard negatives.

    Where the row has a `target_arc_snr`, the flux in all bands is scaled so that arc_snr equals it; see
    `injection.priors`.

    Args:
        row: of the manifest; not a control.
        centre: the host's x, y in the stamp's frame, arcsec.
        psfs: one per band.
        invvar: (B, H, W) 1/nanomaggy^2.
        good_r: (H, W) pixels whose r mask bits are clean.
        bank: of source galaxies; None where no row names one.
        settings: of the stamps.
        pixel_scale: arcsec.

    Raises:
        BadInputError: see `source_of`.
        NoSignalError: a target is set and no light of the arc falls on a pixel with weight.
    """
    lens = lens_of(row, centre)
    size = invvar.shape[-1]
    fine = render_fine(lens, source_of(row, centre, bank), size, pixel_scale)
    fluxes = unlensed_fluxes(row, fine.flux)
    image = convolve_bands(fine, psfs, fluxes)
    snr = arc_snr(image, invvar)
    if row["target_arc_snr"] is not None:
        if not snr > 0:
            raise NoSignalError(f"Task {row['task_id']} has no light where invvar > 0, so no arc_snr to scale.")
        factor = row["target_arc_snr"] / snr
        fluxes, image, snr = fluxes * factor, image * np.float32(factor), float(row["target_arc_snr"])
    seed = int(row["task_seed64"])
    shuffled = shuffle_in_rings(fine, np.random.default_rng([seed, _STREAM_SHUFFLE]), centre)
    extra = {}
    for number, kind in enumerate(settings.hard_negatives.extra):
        rng = np.random.default_rng([seed, _STREAM_EXTRA, number])
        extra[kind] = SHUFFLES[kind](fine, rng, centre, settings.hard_negatives)
    return Arc(
        image=image,
        shuffled=convolve_bands(shuffled, psfs, fluxes),
        extra={kind: convolve_bands(light, psfs, fluxes) for kind, light in extra.items()},
        fluxes=fluxes,
        measures={
            **_measures(lens, fine, fluxes),
            "arc_snr": snr,
            "arc_snr_maxpix": arc_snr_maxpix(image[BANDS.index("r")], invvar[BANDS.index("r")], good_r),
            "src_dmag": _magnitude(fluxes[BANDS.index("r")]) - row["rmag"]
            if row["dmag_mode"] != "lensed"
            else row["src_dmag"],
        },
    )


def gains(invvar: npt.NDArray[np.floating], settings: ShotNoiseSettings, pixel_scale: float) -> npt.NDArray[np.float64]:
    """(B,) electrons per nanomaggy: as set, else sky per pixel x the stamp's median positive invvar.

    The median is of sky, where var = sky / gain: the weight at a bright host has the host's own noise in it.
    """
    if settings.gain is not None:
        return np.array([settings.gain[band] for band in BANDS])  # type: ignore[index]
    sky = np.array([_flux(settings.sky_mag_arcsec2[band]) * pixel_scale**2 for band in BANDS])  # type: ignore[index]
    return sky * np.array([np.median(plane[plane > 0]) for plane in invvar])


def shot_noise(
    arc: npt.NDArray[np.floating], gain: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(B, H, W) Poisson fluctuation of the arc's electrons, nanomaggies: mean 0, variance arc / gain, 0 where no arc.

    Sky and host are in the coadd's own noise already.
    """
    electrons = np.maximum(arc, 0.0).astype(np.float64) * gain[:, None, None]
    return (poisson(electrons.ravel(), rng).reshape(arc.shape) - electrons) / gain[:, None, None]


def add_noise(
    arc: Arc, invvar: npt.NDArray[np.floating], seed: int, settings: ShotNoiseSettings, pixel_scale: float
) -> Arc:
    """The arc and its hard negatives as they add to a stamp, each with an independent draw of the same noise."""
    if not settings.enabled:
        return arc
    gain = gains(invvar, settings, pixel_scale)

    def noisy(image: Image, *stream: int) -> Image:
        noise = shot_noise(image, gain, np.random.default_rng([seed, *stream]))
        return (image + noise).astype(np.float32)

    extra = {kind: noisy(image, _STREAM_EXTRA_NOISE, n) for n, (kind, image) in enumerate(arc.extra.items())}
    return replace(
        arc,
        image=noisy(arc.image, _STREAM_POSITIVE_NOISE),
        shuffled=noisy(arc.shuffled, _STREAM_SHUFFLED_NOISE),
        extra=extra,
    )


def _measures(lens: Lens, fine: FineImage, fluxes: npt.NDArray[np.float64]) -> dict[str, Any]:
    """What the light before the PSF tells.

    Stretches are medians over the arc's light: their mean diverges on a critical curve. `expected_arc_radius` is the
    light's mean distance from the lens, arcsec.
    """
    magnification = fine.flux
    measures: dict[str, Any] = {"magnification": magnification, "src_mag_r": _magnitude(fluxes[BANDS.index("r")])}
    measures |= {
        f"lensed_mag_{band}": _magnitude(flux * magnification) for band, flux in zip(BANDS, fluxes, strict=True)
    }
    warnings = []
    if magnification > 0:
        # Where nine tenths of the light are and more: the faint rest has no weight in a median.
        rows, columns = np.nonzero(fine.values > 0.01 * fine.values.max())
        light = fine.values[rows, columns]
        axis = fine_grid(fine.size, fine.oversampling, fine.pixel_scale)
        x, y = axis[columns], axis[rows]
        tangential, radial = stretches(lens, x, y)
        measures["tangential_stretch"] = _weighted_median(tangential, light)
        measures["radial_stretch"] = _weighted_median(radial, light)
        measures["expected_arc_radius"] = float(np.average(np.hypot(x - lens.x, y - lens.y), weights=light))
        edge = _EDGE_PIXELS * fine.oversampling
        inside = fine.values[edge:-edge, edge:-edge].sum()
        if magnification - inside > _MAX_EDGE_LIGHT * magnification:
            warnings.append("arc cut off by the stamp")
    else:
        warnings.append("no light in the stamp")
    if magnification < 1.0:
        warnings.append("magnification below 1")
    measures["physics_valid"] = int(not warnings)
    measures["physics_warnings"] = "; ".join(warnings) or None
    return measures


def _weighted_median(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, 0.5 * cumulative[-1])]])


def _flux(magnitude: float) -> float:
    """Nanomaggies of an AB magnitude."""
    return float(10.0 ** (0.4 * (AB_ZERO_POINT - magnitude)))


def _magnitude(flux: float) -> float | None:
    """AB magnitude of a flux in nanomaggies; none without flux."""
    return AB_ZERO_POINT - 2.5 * math.log10(flux) if flux > 0 else None
