"""Hard negatives of pairs whose arc is known as pixels alone: those of positive - control change places.

Shuffled after the PSF, the light is rougher than any PSF leaves it, which a network may notice; where the arc can be
rendered, `hard_negatives` shuffles it before the PSF.
"""

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.injection.stored_config import PixelShuffleSettings


def shuffle_pixels(
    arc_BHW: NDArray[np.float32],
    theta_e: float,
    psfsize: float,
    centre: tuple[float, float],
    rng: np.random.Generator,
    settings: PixelShuffleSettings,
) -> NDArray[np.float32] | None:
    """The arc with the pixels of its annulus moved, all bands alike; light outside the annulus stays.

    Args:
        arc_BHW: positive - control, nanomaggies per pixel.
        theta_e: Einstein radius, pixels.
        psfsize: FWHM, pixels.
        centre: column and row of the lens.
        rng: decides where pixels go.
        settings: the annulus, and whether pixels leave their ring.

    Returns:
        As `arc_BHW`; None where the annulus has no more than `min_pixels` pixels.
    """
    height, width = arc_BHW.shape[-2:]
    radius_HW = np.hypot(np.arange(width) - centre[0], np.arange(height)[:, None] - centre[1])
    half_width = settings.fwhm_factor * psfsize
    low = max(settings.min_radius_pixels, theta_e - half_width)
    inside_P = np.flatnonzero((radius_HW >= low) & (radius_HW < theta_e + half_width))
    if len(inside_P) <= settings.min_pixels:
        return None
    ring_P = radius_HW.ravel()[inside_P].astype(np.intp)
    if settings.within == "annulus":
        ring_P[:] = 0
    # Both orders go ring by ring; within a ring, the second is a random one.
    own_P = np.argsort(ring_P, kind="stable")
    other_P = np.lexsort((rng.random(len(ring_P)), ring_P))
    flat_BP = arc_BHW.reshape(len(arc_BHW), -1)
    shuffled_BP = flat_BP.copy()
    shuffled_BP[:, inside_P[own_P]] = flat_BP[:, inside_P[other_P]]
    return shuffled_BP.reshape(arc_BHW.shape)
