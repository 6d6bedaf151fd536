"""The embedded survey's real lenses: arcs of irregular galaxies, drawn with lenstronomy.

Deliberately not this project's own lensing code: what is found in these images must not depend on it being right.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from dark_halo_scope.survey.mini.conditions import MOFFAT_BETA
from dark_halo_scope.survey.mini.populations import draw_lrg
from dark_halo_scope.survey.mini.profiles import SkyObject, galaxy
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import nanomaggies

STAMP = 64
"""Side of an arc's stamp, pixels."""
_FINE = 5
"""Fine pixels per pixel along each axis; odd, so that one of them sits at each pixel's centre."""
_KERNEL_RADIUS = 7.0
"""Arcsec out to which an arc's PSF reaches."""


@dataclass(frozen=True)
class Arc:
    """Lensed light beside one host."""

    host: SkyObject
    theta_e: float
    """Arcsec, product average."""
    source_redshift: float
    confirmed: bool
    light: NDArray[np.float64]
    """(3, STAMP, STAMP) nanomaggies per pixel, with the PSF."""
    x0: int
    y0: int
    """Pixel of the brick that is the stamp's (0, 0)."""
    magnification: float

    @property
    def flux(self) -> NDArray[np.float64]:
        """(3,) nanomaggies."""
        return self.light.sum(axis=(1, 2))


def draw_arc(
    rng: np.random.Generator, position: tuple[float, float], ebv: float, psf_fwhm: NDArray[np.float64], confirmed: bool
) -> Arc:
    """A massive red galaxy and the arcs around it; confirmed lenses have wider and brighter ones."""
    host = draw_lrg(rng, position, ebv, massive=0.8)
    theta_e = float(np.clip(rng.lognormal(np.log(1.55 if confirmed else 1.3), 0.28), 0.75, 3.2))
    q = float(np.clip(host.q + rng.normal(0.05, 0.08), 0.5, 0.98))
    ellipticity = (1 - q) / (1 + q)
    phi = host.phi + rng.normal(0.0, 0.12)
    shear, shear_angle = abs(rng.normal(0.0, 0.035)), rng.uniform(0, np.pi)
    x0, y0 = int(np.floor(host.x)) - STAMP // 2, int(np.floor(host.y)) - STAMP // 2
    x, y = _fine_grid(host.x - x0, host.y - y0)
    lens = LensModel(["SIE", "SHEAR"])
    source_x, source_y = lens.ray_shooting(
        x, y,
        [
            {
                "theta_E": theta_e,
                "e1": ellipticity * np.cos(2 * phi),
                "e2": ellipticity * np.sin(2 * phi),
                "center_x": 0.0,
                "center_y": 0.0,
            },
            {"gamma1": shear * np.cos(2 * shear_angle), "gamma2": shear * np.sin(2 * shear_angle)},
        ],
    )  # fmt: skip
    radius, angle = 0.42 * theta_e * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    pattern = _irregular_source(rng, source_x, source_y, float(radius * np.cos(angle)), float(radius * np.sin(angle)))
    pixel_area = (PIXEL_SCALE / _FINE) ** 2
    # The faintness is chosen for the arc, where surveys have their limit; the source's follows from it.
    lensed_r = rng.uniform(20.4, 22.2) if confirmed else rng.uniform(20.9, 23.0)
    colours = rng.normal([0.25, 0.20], [0.15, 0.15])
    total = nanomaggies([lensed_r + colours[0], lensed_r, lensed_r - colours[1]])
    light = []
    for band, fwhm in enumerate(psf_fwhm):
        fine = pattern[band].reshape(STAMP * _FINE, STAMP * _FINE)
        # Unit flux of the band's own pattern: colours inside the source stay, the arc's total is as drawn above.
        convolved = fftconvolve(fine * (total[band] / fine.sum()), _fine_psf(float(fwhm)), mode="same")
        light.append(convolved[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE] * _FINE**2)
    magnification = float(pattern[1].sum() * pixel_area)
    return Arc(
        host=host,
        theta_e=theta_e,
        source_redshift=float(np.clip(rng.normal(1.6, 0.5), host.redshift + 0.3, 3.2)),
        confirmed=confirmed,
        light=np.array(light),
        x0=x0,
        y0=y0,
        magnification=magnification,
    )


def catalogue_entries(rng: np.random.Generator, arc: Arc) -> list[SkyObject]:
    """What a catalogue makes of a lens: a host that takes up part of the arc, and often a blue object beside it."""
    host = arc.host
    blended = SkyObject(
        "lens", host.x, host.y, host.redshift, host.components, host.w1, host.r_e, host.n, host.q, host.phi,
        extra_flux=0.35 * arc.flux,
    )  # fmt: skip
    if rng.random() < 0.45:
        return [blended]
    row, column = np.unravel_index(np.argmax(arc.light[1]), arc.light[1].shape)
    image = galaxy(
        "image",
        arc.x0 + float(column),
        arc.y0 + float(row),
        arc.source_redshift,
        0.4 * arc.flux,
        0.1,
        0.35,
        1.0,
        0.5,
        0.0,
    )
    return [blended, SkyObject(**{**vars(image), "drawn": False})]


def _irregular_source(
    rng: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64], x_s: float, y_s: float
) -> NDArray[np.float64]:
    """Surface brightness (3, N) at source positions of a clumpy, lopsided galaxy of unit flux in r."""
    r_e = float(np.clip(rng.lognormal(np.log(0.22), 0.35), 0.08, 0.5))
    e1, e2 = np.clip(rng.normal(0, 0.18, size=2), -0.4, 0.4)
    disc = LightModel(["SERSIC_ELLIPSE"])
    shape = {"amp": 1.0, "R_sersic": r_e, "n_sersic": 1.0, "e1": e1, "e2": e2, "center_x": x_s, "center_y": y_s}
    share = rng.uniform(0.35, 0.7)
    amount = (1 - share) / float(disc.total_flux([shape], norm=True)[0])
    smooth = disc.surface_brightness(x, y, [{**shape, "amp": amount}])
    clumps = int(rng.integers(4, 10))
    bright = rng.lognormal(0, 0.7, size=clumps)
    kwargs = [
        {
            "amp": share * weight,
            "sigma": float(rng.uniform(0.02, 0.07)),
            "center_x": x_s + float(rng.normal(0.3 * r_e, 0.9 * r_e)),
            "center_y": y_s + float(rng.normal(0, 0.9 * r_e)),
        }
        for weight in bright / bright.sum()
    ]
    knots = LightModel(["GAUSSIAN"] * clumps).surface_brightness(x, y, kwargs)
    tint = np.array([[1.0, 1.0, 1.0], [1.25, 1.0, 0.85]])
    return tint[0][:, None] * smooth + tint[1][:, None] * knots


def _fine_grid(x_centre: float, y_centre: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions in arcsec from the host, flat, of the stamp's fine pixels."""
    fine = (np.arange(STAMP * _FINE) + 0.5) / _FINE - 0.5
    x, y = np.meshgrid((fine - x_centre) * PIXEL_SCALE, (fine - y_centre) * PIXEL_SCALE)
    return x.ravel(), y.ravel()


@cache
def _fine_psf(fwhm: float) -> NDArray[np.float64]:
    """Moffat(3.5), pixel included, on the fine grid; sums to one."""
    scale = PIXEL_SCALE / _FINE
    half = int(_KERNEL_RADIUS / scale)
    axis = np.arange(-half, half + 1) * scale
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    kernel = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -MOFFAT_BETA
    return kernel / kernel.sum()
