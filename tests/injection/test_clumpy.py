"""Clumpy sources: a disc with clumps as the literature counts them, centred, of unit flux and known size."""

import numpy as np
import pytest
from scipy import ndimage

from dark_halo_scope.injection.clumpy import clumpy_galaxy
from dark_halo_scope.injection.galaxy_images import GalaxyImage, half_light_radius


def galaxies(count: int, axis_ratio: float = 1.0) -> list[GalaxyImage]:
    return [clumpy_galaxy(np.random.default_rng([seed, 1]), axis_ratio) for seed in range(count)]


def clumps_of(image: np.ndarray) -> int:
    """Compact peaks: brighter than their surroundings by a tenth of the brightest."""
    sharp = image - ndimage.gaussian_filter(image, 6.0)
    peaks = (ndimage.maximum_filter(image, 5) == image) & (sharp > 0.1 * sharp.max())
    return int(peaks.sum())


def test_a_galaxy_has_unit_flux_its_centroid_in_the_middle_and_its_radius_measured() -> None:
    for galaxy in galaxies(20, 0.6):
        assert galaxy.image.sum() == pytest.approx(1.0, abs=1e-5)
        rows, columns = np.indices(galaxy.image.shape) - (len(galaxy.image) - 1) / 2
        assert max(abs((rows * galaxy.image).sum()), abs((columns * galaxy.image).sum())) < 0.5
        measured = half_light_radius(galaxy.image) * galaxy.pixel_scale
        assert galaxy.half_light_radius == pytest.approx(measured, rel=1e-4)
        assert 0.7 < galaxy.half_light_radius < 1.6


def test_the_same_generator_gives_the_same_galaxy_and_another_one_another() -> None:
    first, again = (clumpy_galaxy(np.random.default_rng(3), 0.7).image for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, clumpy_galaxy(np.random.default_rng(4), 0.7).image)


def test_a_galaxy_has_a_few_clumps_and_a_sersic_disc_none() -> None:
    counts = [clumps_of(galaxy.image) for galaxy in galaxies(60)]
    # One of the peaks is the disc's own centre, unless the clumps outshine it.
    assert 1.5 < np.mean(counts) < 3.5
    assert max(counts) <= 9
    axis = (np.arange(161) - 80) / 16
    disc = np.exp(-1.678 * np.hypot(axis, axis[:, None]))
    assert clumps_of(disc) == 1


def test_about_a_fifth_of_the_light_is_in_clumps_and_never_most_of_it() -> None:
    """What stands out above the median of its surroundings, with a margin for the disc's own slope."""
    share = []
    for galaxy in galaxies(25):
        image = galaxy.image.astype(np.float64)
        smooth = ndimage.median_filter(image, footprint=np.hypot(*np.indices((17, 17)) - 8) <= 8)
        share.append(np.clip(image - 1.2 * smooth, 0.0, None).sum())
    assert 0.10 < np.mean(share) < 0.30
    assert max(share) < 0.65


def test_an_inclined_disc_lies_along_x() -> None:
    for galaxy in galaxies(10, 0.4):
        rows, columns = np.indices(galaxy.image.shape) - (len(galaxy.image) - 1) / 2
        assert (columns**2 * galaxy.image).sum() > 2.0 * (rows**2 * galaxy.image).sum()
