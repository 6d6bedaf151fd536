"""Images of a brick's objects, drawn with GalSim: noise-free light in nanomaggies per pixel."""

from collections.abc import Iterable, Iterator

import galsim
import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.survey.mini.conditions import MOFFAT_BETA
from dark_halo_scope.survey.mini.profiles import Component, SkyObject
from dark_halo_scope.survey.names import PIXEL_SCALE

_TRUNCATION = 8.0
"""Galaxies end at this many half-light radii, as in the models of SDSS and Tractor: an n = 4 profile never would."""
_FAINTEST = 3e-4
"""Surface brightness in nanomaggies per pixel, a twentieth of DR10's noise, down to which a star is drawn."""
_HALO_FLUX, _HALO_FWHM, _HALO_BETA = 0.015, 4.0, 1.6
"""Aureole of bright stars: share of the flux, arcsec, slope."""
_HALO_FROM = 500.0
"""Flux in nanomaggies (15.75 mag) above which the aureole is drawn; below, it drowns in the noise."""
_LARGEST = 600


def draw_scene(
    objects: Iterable[SkyObject], psf_fwhm: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Light of all objects, (3, H, W) nanomaggies per pixel in g, r, z.

    The PSF is a Moffat(3.5) that includes the pixel (an effective PSF), so light is taken at pixel centres.

    Args:
        psf_fwhm: (3,) arcsec.
    """
    scene = np.zeros((len(psf_fwhm), *shape))
    for sky_object in objects:
        if sky_object.drawn:
            for band, fwhm in enumerate(psf_fwhm):
                for profile in _profiles(sky_object, band, float(fwhm)):
                    _add(scene[band], profile, sky_object.x, sky_object.y)
    return scene


def _profiles(sky_object: SkyObject, band: int, fwhm: float) -> Iterator[tuple[galsim.GSObject, int]]:
    """What to draw of an object in one band, convolved, and the side of the stamp in pixels that it needs."""
    psf = galsim.Moffat(beta=MOFFAT_BETA, fwhm=fwhm)
    if sky_object.kind != "star":
        profile = galsim.Convolve([galsim.Sum([_sersic(c, band) for c in sky_object.components]), psf])
        yield profile, min(profile.getGoodImageSize(PIXEL_SCALE), _LARGEST)
        return
    flux = float(sky_object.flux[band])
    halo = flux * _HALO_FLUX if flux > _HALO_FROM else 0.0
    star = psf.withFlux(flux - halo)
    yield star, _extent(star.max_sb, psf.scale_radius, MOFFAT_BETA)
    if halo:
        aureole = galsim.Moffat(beta=_HALO_BETA, fwhm=_HALO_FWHM, flux=halo)
        yield aureole, _extent(aureole.max_sb, aureole.scale_radius, _HALO_BETA)


def _extent(peak: float, alpha: float, beta: float) -> int:
    """Side in pixels of the square outside which a Moffat profile is fainter than anything one could see."""
    contrast = peak * PIXEL_SCALE**2 / _FAINTEST
    radius = alpha * np.sqrt(max(contrast ** (1 / beta) - 1.0, 1.0)) / PIXEL_SCALE
    return int(min(2 * np.ceil(radius) + 4, _LARGEST))


def _sersic(component: Component, band: int) -> galsim.GSObject:
    flux = float(component.flux[band])
    if component.r_e == 0:
        profile: galsim.GSObject = galsim.DeltaFunction(flux=flux)
    elif component.n == 0.5:
        profile = galsim.Gaussian(half_light_radius=component.r_e, flux=flux)
    else:
        profile = galsim.Sersic(
            component.n, half_light_radius=component.r_e, flux=flux, trunc=_TRUNCATION * component.r_e
        )
    if component.q < 1:
        profile = profile.shear(q=component.q, beta=component.phi * galsim.radians)
    return profile.shift(component.dx, component.dy)


def _add(scene: NDArray[np.float64], profile_and_size: tuple[galsim.GSObject, int], x: float, y: float) -> None:
    """Draw a profile centred at a pixel position, and add what falls inside the scene."""
    profile, size = profile_and_size
    x0, y0 = int(np.floor(x)) - size // 2, int(np.floor(y)) - size // 2
    stamp = galsim.ImageD(size, size, xmin=x0, ymin=y0, scale=PIXEL_SCALE)
    profile.drawImage(image=stamp, method="no_pixel", center=galsim.PositionD(x, y))
    add_stamp(scene, stamp.array, x0, y0)


def add_stamp(scene: NDArray[np.float64], stamp: NDArray[np.float64], x0: int, y0: int) -> None:
    """Add a stamp whose pixel (0, 0) is the scene's (x0, y0), leaving out what falls outside."""
    height, width = scene.shape
    left, right = max(x0, 0), min(x0 + stamp.shape[1], width)
    bottom, top = max(y0, 0), min(y0 + stamp.shape[0], height)
    if left < right and bottom < top:
        scene[bottom:top, left:right] += stamp[bottom - y0 : top - y0, left - x0 : right - x0]
