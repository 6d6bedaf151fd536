"""What shuffled pixels promise: the same light at the same radii (rings), bands that stay together, nothing outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.injection.pixel_shuffle import shuffle_pixels
from dark_halo_scope.injection.stored_config import PixelShuffleSettings

CENTRE = (31.3, 31.8)


def _arc(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, 64, 64)).astype(np.float32)


def _radius() -> np.ndarray:
    return np.hypot(np.arange(64) - CENTRE[0], np.arange(64)[:, None] - CENTRE[1])


@given(theta_e=st.floats(0.5, 12), psfsize=st.floats(2, 6), seed=st.integers(0, 99))
def test_each_pixel_ring_keeps_its_light_and_the_rest_its_pixels(theta_e: float, psfsize: float, seed: int) -> None:
    arc, rng = _arc(seed), np.random.default_rng(seed)
    shuffled = shuffle_pixels(arc, theta_e, psfsize, CENTRE, rng, PixelShuffleSettings())
    assert shuffled is not None
    radius = _radius()
    for ring in range(40):
        here = radius.astype(int) == ring
        for band in range(3):
            np.testing.assert_array_equal(np.sort(shuffled[band][here]), np.sort(arc[band][here]))
    outside = (radius < max(2.0, theta_e - 1.5 * psfsize)) | (radius >= theta_e + 1.5 * psfsize)
    np.testing.assert_array_equal(shuffled[:, outside], arc[:, outside])
    assert not np.array_equal(shuffled, arc)


@pytest.mark.parametrize("within", ["rings", "annulus"])
def test_bands_move_together(within: str) -> None:
    arc = _arc()
    arc[1], arc[2] = 2 * arc[0], 3 * arc[0]
    settings = PixelShuffleSettings(within=within)  # type: ignore[arg-type]
    shuffled = shuffle_pixels(arc, 5.0, 4.0, CENTRE, np.random.default_rng(1), settings)
    assert shuffled is not None
    np.testing.assert_array_equal(shuffled[1], 2 * shuffled[0])
    np.testing.assert_array_equal(shuffled[2], 3 * shuffled[0])


def test_one_permutation_of_the_annulus_moves_light_between_radii() -> None:
    radius = _radius()
    arc = np.broadcast_to(np.where(radius < 6, 1.0, 0.0).astype(np.float32), (3, 64, 64))
    settings = PixelShuffleSettings(within="annulus")
    shuffled = shuffle_pixels(arc, 6.0, 4.0, CENTRE, np.random.default_rng(1), settings)
    assert shuffled is not None
    assert shuffled.sum() == arc.sum()
    assert shuffled[0][(radius >= 7) & (radius < 11)].sum() > 20


def test_an_annulus_of_few_pixels_is_not_shuffled() -> None:
    settings = PixelShuffleSettings(fwhm_factor=0.2, min_pixels=30)
    assert shuffle_pixels(_arc(), 2.5, 1.0, CENTRE, np.random.default_rng(0), settings) is None


def test_the_generator_alone_decides() -> None:
    one, two, other = (
        shuffle_pixels(_arc(), 5.0, 4.0, CENTRE, np.random.default_rng(seed), PixelShuffleSettings())
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
