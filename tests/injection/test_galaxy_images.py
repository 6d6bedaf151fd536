"""From a postage stamp to a source: sizes are those of the galaxy, whatever the noise around it."""

import numpy as np
import pytest
from scipy import ndimage

from dark_halo_scope.injection.galaxy_images import (
    clipped_noise,
    half_light_radius,
    isolate,
    isolate_in_unknown_noise,
    remove_clipped_noise,
    replace_psf,
)
from dark_halo_scope.injection.source_config import SourceBankSettings
from source_banks import earlier_image, exponential, gaussian

THRESHOLD = SourceBankSettings().threshold_sigma
COSMOS_NOISE = 2.6e-3  # counts per second and pixel of 0.03"


def flux(magnitude: float) -> float:
    """Counts per second in F814W."""
    return float(10 ** (0.4 * (25.94 - magnitude)))


def test_half_light_radius_of_a_gaussian_is_1_1774_sigma() -> None:
    for sigma in (2.0, 5.0, 9.0):
        assert half_light_radius(gaussian(101, sigma, 0.3, -0.4)) == pytest.approx(1.1774 * sigma, rel=0.01)


def test_noise_around_a_galaxy_does_not_inflate_it() -> None:
    rng = np.random.default_rng(1)
    galaxy = 50 * gaussian(151, 6.0) + rng.normal(0.0, 0.002, (151, 151))
    image, counts = isolate(galaxy, 0.002, THRESHOLD)
    assert counts == pytest.approx(50, rel=0.01)
    assert image.sum() == pytest.approx(1.0)
    assert half_light_radius(image) == pytest.approx(1.1774 * 6, rel=0.03)
    # The earlier bank's way, kept here to show what the promise prevents.
    clipped = np.clip(galaxy, 0, None)
    assert half_light_radius(clipped) > 1.2 * 1.1774 * 6


def test_a_neighbour_is_left_out_and_the_galaxy_is_centred() -> None:
    scene = 50 * gaussian(151, 5.0, 12.0, -7.0) + 5 * gaussian(151, 2.0, -50.0, 50.0)
    image, counts = isolate(scene, 0.002, THRESHOLD)
    assert counts == pytest.approx(50, rel=0.01)  # and not 55
    rows, columns = np.indices(image.shape) - (len(image) - 1) / 2
    assert abs((rows * image).sum()) < 0.51
    assert abs((columns * image).sum()) < 0.51
    assert half_light_radius(image) == pytest.approx(1.1774 * 5, rel=0.03)


def test_replacing_the_psf_gives_the_width_of_galaxy_and_target() -> None:
    galaxy, psf = gaussian(128, 4.0), gaussian(33, 2.0)
    seen = ndimage.gaussian_filter(galaxy, 2.0)
    target_sigma = 0.8
    sharp = replace_psf(seen, psf, target_sigma * 2.3548, noise=1e-6)
    assert half_light_radius(sharp) == pytest.approx(1.1774 * np.hypot(4.0, target_sigma), rel=0.01)
    rows, columns = np.indices(sharp.shape) - 63.5
    assert (columns * sharp).sum() / sharp.sum() == pytest.approx(0.0, abs=0.02)
    assert (rows * sharp).sum() / sharp.sum() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("mean", [0.0, 0.4, -0.4])
def test_clipped_noise_is_measured_from_its_positive_half(mean: float) -> None:
    rng = np.random.default_rng(2)
    values = np.clip(rng.normal(mean, 2.0, 40_000), 0.0, None)
    assert clipped_noise(values) == pytest.approx(2.0, rel=0.05)
    # A neighbour on a twentieth of the pixels changes little, and pixels without noise have none.
    values[:2000] += 500.0
    assert clipped_noise(values) == pytest.approx(2.0, rel=0.25)
    assert clipped_noise(np.zeros(1000)) == 0.0


def test_the_pedestal_of_clipped_noise_is_taken_out_and_the_galaxys_light_stays() -> None:
    rng = np.random.default_rng(3)
    light = 3.0 * exponential(96, 10.0)
    noisy = np.clip(light + rng.normal(0.0, 0.0026, (200, 96, 96)), 0.0, None)
    cleaned = np.mean([remove_clipped_noise(image) for image in noisy], axis=0)
    pedestal = noisy.mean(axis=0) - light
    assert pedestal[:20, :20].mean() == pytest.approx(0.4 * 0.0026, rel=0.02)
    assert np.abs((cleaned - light)[:20, :20].mean()) < 0.1 * 0.4 * 0.0026
    assert cleaned.sum() == pytest.approx(light.sum(), rel=0.02)
    assert noisy.mean(axis=0).sum() > 3.0 * light.sum()


def test_an_image_without_noise_is_left_as_it_is() -> None:
    image = np.zeros((96, 96))
    image[30:60, 30:60] = exponential(30, 4.0)
    assert remove_clipped_noise(image) is image


@pytest.mark.parametrize(
    ("half_light", "magnitude", "tolerance"), [(5, 23.5, 0.03), (10, 22.5, 0.03), (10, 23.5, 0.05)]
)
def test_galaxies_of_known_size_come_back_from_the_earlier_pipelines_images(
    half_light: float, magnitude: float, tolerance: float
) -> None:
    """The pedestal inflates their radii to those of the stamp: half of a square of 96 pixels lies within 38."""
    rng = np.random.default_rng(4)
    light = flux(magnitude) * exponential(96, half_light)
    true = half_light_radius(ndimage.gaussian_filter(light, 0.5))
    images = [earlier_image(light, COSMOS_NOISE, rng).astype(np.float64) for _ in range(10)]
    sources = [isolate_in_unknown_noise(remove_clipped_noise(image), THRESHOLD) for image in images]
    assert np.mean([half_light_radius(source) for source in sources]) == pytest.approx(true, rel=tolerance)
    assert np.mean([half_light_radius(image) for image in images]) > 1.15 * true
    for source in sources:
        rows, columns = np.indices(source.shape) - (len(source) - 1) / 2
        assert source.sum() == pytest.approx(1.0)
        assert max(abs((rows * source).sum()), abs((columns * source).sum())) < 0.51
