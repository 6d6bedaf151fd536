"""Bright stars and what they spoil: saturated cores, flagged pixels, MASKBITS."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.survey.mini.conditions import ALLMASK, SATURATED, Conditions, MaskBit
from dark_halo_scope.survey.mini.profiles import SkyObject
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import magnitude

_SATURATION = 60.0
"""Light in nanomaggies per pixel at which DECam's long exposures saturate."""
_BRIGHT, _MEDIUM = 13.0, 16.0
"""Gaia G below which a star sets BRIGHT, and MEDIUM."""
_BLEED = 0.35
"""Length of a bleed trail to either side, as a share of the star's mask radius."""


def mask_radius(g_mag: float) -> float:
    """Radius in arcsec of the mask around a star: 1630" 1.396^-G (legacypipe reference.py)."""
    return float(1630.0 * 1.396**-g_mag)


def saturated_pixels(light: NDArray[np.float64], objects: Sequence[SkyObject]) -> NDArray[np.bool_]:
    """(3, H, W): pixels above saturation, and the trails along rows into which the charge of bright stars bleeds."""
    saturated = light > _SATURATION
    for o in objects:
        g_mag = float(magnitude(o.flux[1]))
        row, column = round(o.y), round(o.x)
        if o.kind == "star" and g_mag < _BRIGHT and 0 <= row < light.shape[1]:
            reach = int(_BLEED * mask_radius(g_mag) / PIXEL_SCALE)
            saturated[:, max(row - 1, 0) : row + 2, max(column - reach, 0) : max(column + reach, 0)] = True
    return saturated


def draw_maskbits(
    conditions: Conditions, saturated: NDArray[np.bool_], objects: Sequence[SkyObject]
) -> NDArray[np.int32]:
    """MASKBITS of a brick, (H, W)."""
    bits = np.zeros(saturated.shape[1:], dtype=np.int32)
    for band in range(len(saturated)):
        bits[saturated[band]] |= SATURATED[band]
        # ALLMASK: exposures exist, and every one of them is flagged.
        flagged = (conditions.nexp[band] > 0) & ((conditions.sky_invvar[band] == 0) | saturated[band])
        bits[flagged] |= ALLMASK[band]
    for o in objects:
        if o.kind == "star":
            g_mag = float(magnitude(o.flux[1]))
            if g_mag < _MEDIUM:
                _add_disc(bits, o, mask_radius(g_mag), MaskBit.MEDIUM)
            if g_mag < _BRIGHT:
                _add_disc(bits, o, mask_radius(g_mag), MaskBit.BRIGHT)
                _add_disc(bits, o, 1.3 * mask_radius(g_mag), MaskBit.WISEM1)
                _add_disc(bits, o, mask_radius(g_mag), MaskBit.WISEM2)
    return bits


def _add_disc(bits: NDArray[np.int32], o: SkyObject, radius: float, bit: MaskBit) -> None:
    r = radius / PIXEL_SCALE
    y0, x0 = max(int(o.y - r), 0), max(int(o.x - r), 0)
    window = bits[y0 : max(int(o.y + r) + 2, 0), x0 : max(int(o.x + r) + 2, 0)]
    y, x = np.ogrid[: window.shape[0], : window.shape[1]]
    window[(x + x0 - o.x) ** 2 + (y + y0 - o.y) ** 2 < r**2] |= bit
