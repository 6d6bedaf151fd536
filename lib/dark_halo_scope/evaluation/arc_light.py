"""Light of arcs measured from pixels alone, so that injected arcs and known lenses can be put side by side.

For real lenses only pixels and a rough position are known. The estimator therefore uses nothing else: no Einstein
radius, no control, no model. What sets an arc apart from a luminous red galaxy is first of all colour, so that

    D = g - c z,  c = ratio of g and z in the galaxy's core,

holds hardly any of the galaxy, whatever its shape, and most of an arc. Summed over a fixed annulus it is the arc's g
light. D is also the arc's pattern: the part of the r image that varies in azimuth as D does is the arc's r light, which
gives its colour.

Light above the azimuthal median, which suggests itself, says more about how far round an arc reaches than about its
flux: of an arc whose source is near the lens's axis a quarter is left (a test shows it).

What this gets wrong, which is why injections, controls and lenses must all be measured by it and compared only so:

- The arc's own z light, scaled by c, is taken away, its light in the core makes c too large, and what lies inside the
  inner radius is lost: 30-50% of the g light of a blue arc at 1.5 arcsec, more than half at 1 arcsec, nearly all
  at 0.7 arcsec, and all of an arc as red as its galaxy.
- Blue neighbours in the annulus, a galaxy that is bluer outside, and a g PSF wider than that of z add light: controls
  show how much, the floor.
- A ring that is complete has no azimuth, and then no r light.

`measure_arc_light` records the first as measured against true magnitudes, the second as the controls' distribution.

Shape legend: N stamps, B bands g, r, z, H rows, W columns. Pixels are nanomaggies; positions are arcsec from a stamp's
centre, x = column, y = row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.arc_light_config import ArcLightSettings
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import magnitude

FloatArray = NDArray[np.float64]

# The artifact that `measure_arc_light` makes, and its objects.
KIND = "arc_light"
LIGHT = "light.parquet"
LENSES = "lenses.parquet"

_NORMAL_MAD = 1.4826
_SMOOTHING_PIXELS = 1.0
# Variation of D in azimuth above its noise, in standard deviations of that noise's own sum of squares, that a colour
# needs: below, dividing by it gives anything.
_MIN_VARIATION = 5.0


@dataclass(frozen=True)
class ArcLight:
    """What `measure_light` finds; all NaN for a stamp with a pixel that is not finite.

    flux_g: (N,) nanomaggies in the annulus that are bluer than the galaxy.
    sigma_g: (N,) its noise from the sky, nanomaggies; the galaxy's own photons and neighbours are not in it.
    flux_r: (N,) r light of the same pattern, nanomaggies; NaN where the pattern does not stand out of the noise.
    """

    flux_g: FloatArray
    sigma_g: FloatArray
    flux_r: FloatArray

    def magnitudes(self, min_snr: float) -> tuple[FloatArray, FloatArray]:
        """(N,) AB magnitudes in g and r; NaN where g is below `min_snr` times its noise, or no r light."""
        seen = (self.flux_g >= min_snr * self.sigma_g) & (self.flux_g > 0)
        mag_g, mag_r = (magnitude(np.where(seen, flux, np.nan)) for flux in (self.flux_g, self.flux_r))
        return mag_g, mag_r


def measure_light(images_NBHW: NDArray[np.floating], centre_N2: FloatArray, settings: ArcLightSettings) -> ArcLight:
    """Light of arcs, stamp by stamp.

    Args:
        images_NBHW: stamps in g, r, z.
        centre_N2: where each galaxy should be.
        settings: annulus, and how far off the position may be.

    Raises:
        BadInputError: the stamps are too small for the annulus and some sky around it.
    """
    rows, columns = images_NBHW.shape[-2:]
    needed = 2 * (settings.outer_arcsec + settings.sky_arcsec + settings.recentre_arcsec) / PIXEL_SCALE
    if min(rows, columns) < needed:
        raise BadInputError(
            f"Stamps of {rows} x {columns} pixels are too small for an annulus of {settings.outer_arcsec:g} arcsec and "
            f"{settings.sky_arcsec:g} arcsec of sky around it; lower outer_arcsec in the settings of arc_light."
        )
    measured = [
        _light(stamp.astype(np.float64), centre, settings) if np.isfinite(stamp).all() else (np.nan,) * 3
        for stamp, centre in zip(images_NBHW, centre_N2, strict=True)
    ]
    return ArcLight(*np.array(measured, dtype=np.float64).reshape(-1, 3).T)


def find_galaxy(plane_HW: NDArray[np.floating], centre: FloatArray, within_arcsec: float) -> FloatArray:
    """(2,) x, y of the smoothed image's highest pixel within a radius of where the galaxy should be.

    Catalogues of lenses give positions to an arcsecond or so, and a core is smaller.
    """
    smooth = gaussian_filter(plane_HW.astype(np.float64), _SMOOTHING_PIXELS)
    y, x = _positions(plane_HW.shape)
    near = np.hypot(x - centre[0], y - centre[1]) <= max(within_arcsec, PIXEL_SCALE)
    row, column = np.unravel_index(np.argmax(np.where(near, smooth, -np.inf)), smooth.shape)
    return np.array([x[0, column], y[row, 0]])


def _light(stamp_BHW: FloatArray, centre: FloatArray, settings: ArcLightSettings) -> tuple[float, float, float]:
    """g light, its noise, and r light of one stamp."""
    x, y = find_galaxy(stamp_BHW[2], centre, settings.recentre_arcsec)
    rows, columns = _positions(stamp_BHW.shape[1:])
    radius = np.hypot(columns - x, rows - y)
    sky = radius >= settings.outer_arcsec + settings.sky_gap_arcsec
    g, r, z = stamp_BHW - np.median(stamp_BHW[:, sky], axis=1)[:, None, None]
    core = radius < settings.core_arcsec
    red = z[core].sum()
    blue = g - max(g[core].sum() / red, 0.0) * z if red > 0 else g
    noise = _NORMAL_MAD * float(np.median(np.abs(blue[sky] - np.median(blue[sky]))))
    annulus = (radius >= settings.inner_arcsec) & (radius < settings.outer_arcsec)
    pixels = int(annulus.sum())
    flux = float(blue[annulus].sum())
    ring = (radius[annulus] / PIXEL_SCALE).astype(np.intp)
    pattern, light = (_about_rings(values[annulus], ring) for values in (blue, r))
    variation = float(np.sum(pattern**2)) - pixels * noise**2
    if variation <= _MIN_VARIATION * np.sqrt(2.0 * pixels) * noise**2:
        return flux, float(noise * np.sqrt(pixels)), np.nan
    # Less the noise of the pattern itself, which would make every slope too shallow.
    return flux, float(noise * np.sqrt(pixels)), flux * float(np.sum(pattern * light)) / variation


def _about_rings(values: FloatArray, ring: NDArray[np.intp]) -> FloatArray:
    """Values less their mean over the ring that each belongs to."""
    sums, counts = np.bincount(ring, values), np.bincount(ring)
    return values - (sums / np.maximum(counts, 1))[ring]


def _positions(shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Rows (H, 1) and columns (1, W) of pixel centres, arcsec from the stamp's centre."""
    rows, columns = ((np.arange(n, dtype=np.float64) - (n - 1) / 2) * PIXEL_SCALE for n in shape)
    return rows[:, None], columns[None, :]
