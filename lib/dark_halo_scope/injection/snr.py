"""How bright an arc is against the noise of its coadd."""

import math

import numpy as np
import numpy.typing as npt


def arc_snr(arc: npt.NDArray[np.floating], invvar: npt.NDArray[np.floating]) -> float:
    """Matched-filter signal to noise: sqrt(sum over bands and pixels of s^2 invvar). It grows in proportion to flux."""
    return math.sqrt(float(np.sum(arc.astype(np.float64) ** 2 * invvar)))


def arc_snr_maxpix(
    arc_r: npt.NDArray[np.floating], invvar_r: npt.NDArray[np.floating], good_r: npt.NDArray[np.bool_]
) -> float:
    """Largest signal x sqrt(invvar) of a good r pixel, which is what stored data call arc_snr; 0 if all are masked."""
    return float(np.max(np.where(good_r, arc_r * np.sqrt(invvar_r), 0.0)))
