"""Clumpy star-forming galaxies as sources: an exponential disc and a few compact, off-centre clumps.

At the redshifts of lensed sources g, r and z see rest-frame ultraviolet light, in which about 60% of low-mass
star-forming galaxies have an off-centre clump (Guo et al. 2015, ApJ 800, 39, who count those of more than 8% of the
light). How many clumps there are, and how much light is in them, follows Soto et al. (2017, ApJ 837, 6): 2 a clumpy
galaxy on average and at most 8, with 19% of its light. They count fainter clumps too: the median one has 5% of its
galaxy's star formation.
"""

import numpy as np
import numpy.typing as npt

from dark_halo_scope.injection.galaxy_images import GalaxyImage, half_light_radius

# Lengths are in half-light radii of the disc.
_PIXEL = 1.0 / 16.0
_HALF_WIDTH = 5.0  # an exponential disc has 0.2% of its light beyond
_SCALE_LENGTH = 1.0 / 1.67835

_MORE_CLUMPS = 1.0  # Poisson mean of the clumps after the first
_MOST_CLUMPS = 8
_SHARE = (0.04, 0.20)  # of the galaxy's light in one clump, log-uniform: 10% on average
_MOST_SHARE = 0.6  # of the galaxy's light in all clumps
_RADIUS = (0.5, 2.0)  # from the disc's centre
_CLUMP_SIZE = (0.08, 0.20)  # half-light radius; clumps are less than a kpc across, discs a few
_GAUSSIAN_HALF_LIGHT = 1.1774  # half-light radius of a Gaussian over its sigma


def clumpy_galaxy(rng: np.random.Generator, axis_ratio: float) -> GalaxyImage:
    """One galaxy, its major axis along x, drawn at a disc of half-light radius 1".

    Args:
        rng: draws number, light, place and size of the clumps.
        axis_ratio: of the disc, 0 < q <= 1; its clumps lie in its plane and are round.

    Returns:
        (161, 161) image of unit flux with its light's centroid in the middle, and the half-light radius of the whole.
    """
    count = min(1 + int(rng.poisson(_MORE_CLUMPS)), _MOST_CLUMPS)
    share_K = _SHARE[0] * (_SHARE[1] / _SHARE[0]) ** rng.uniform(size=count)
    share_K *= min(1.0, _MOST_SHARE / share_K.sum())
    radius_K, angle_K = rng.uniform(*_RADIUS, count), rng.uniform(0.0, 2.0 * np.pi, count)
    sigma_K = rng.uniform(*_CLUMP_SIZE, count) / _GAUSSIAN_HALF_LIGHT
    stretch = np.sqrt(axis_ratio)
    x_K, y_K = radius_K * np.cos(angle_K) / stretch, radius_K * np.sin(angle_K) * stretch
    # The disc is off the middle by as much as its clumps pull the centroid.
    x_0, y_0 = -float(share_K @ x_K), -float(share_K @ y_K)

    half = round(_HALF_WIDTH / _PIXEL)
    axis = np.arange(-half, half + 1) * _PIXEL
    disc_radius = np.hypot((axis - x_0) * stretch, (axis[:, None] - y_0) / stretch)
    image = _unit(np.exp(-disc_radius / _SCALE_LENGTH)) * (1.0 - share_K.sum())
    for share, x, y, sigma in zip(share_K, x_K + x_0, y_K + y_0, sigma_K, strict=True):
        image += share * _unit(np.outer(_gaussian(axis - y, sigma), _gaussian(axis - x, sigma)))
    return GalaxyImage(image.astype(np.float32), _PIXEL, half_light_radius(image) * _PIXEL)


def _gaussian(offset: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    return np.exp(-0.5 * (offset / sigma) ** 2)


def _unit(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return image / image.sum()
