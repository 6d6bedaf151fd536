"""Gate inputs are what the table of gates says, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dark_halo_scope.evaluation import hybrids

SCALE = 0.262


def images(seed: int, n: int = 3, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, n, 3, size, size)).astype(np.float32)


def radius(size: int, row: int, column: int) -> float:
    """Distance of a pixel from the stamp's centre in arcsec, by hand."""
    return SCALE * float(np.hypot(row - (size - 1) / 2, column - (size - 1) / 2))


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize(("theta_e", "psfsize"), [(1.6, 1.0), (0.7, 1.3), (1.0, 0.9)])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_every_pixel_comes_from_the_image_that_the_table_names(
    size: int, theta_e: float, psfsize: float, factor: float
) -> None:
    positive, control = images(0, n=1, size=size)
    where = hybrids.geometry(np.array([theta_e]), np.array([psfsize]), (size, size), annulus_factor=factor)
    core = hybrids.core_from_positive(positive, control, where)
    annulus = hybrids.annulus_from_positive(positive, control, where)
    occluded = hybrids.annulus_from_control(positive, control, where)
    r_core = max(2 * SCALE, theta_e - factor * psfsize)
    for row in range(size):
        for column in range(size):
            pixel = (0, slice(None), row, column)
            r = radius(size, row, column)
            in_annulus = abs(r - theta_e) < factor * psfsize
            np.testing.assert_array_equal(core[pixel], (positive if r < r_core else control)[pixel])
            np.testing.assert_array_equal(annulus[pixel], (positive if in_annulus else control)[pixel])
            np.testing.assert_array_equal(occluded[pixel], (control if in_annulus else positive)[pixel])


def test_hybrids_are_float32_and_leave_their_inputs_alone() -> None:
    positive, control = images(1)
    before = positive.copy(), control.copy()
    where = hybrids.geometry(np.full(3, 1.2), np.full(3, 1.1), (32, 32))
    for build in (
        hybrids.core_from_positive,
        hybrids.ring_averaged_arc,
        hybrids.annulus_from_positive,
        hybrids.annulus_from_control,
    ):
        result = build(positive, control, where)
        assert result.dtype == np.float32
        assert result.shape == positive.shape
    np.testing.assert_array_equal(positive, before[0])
    np.testing.assert_array_equal(control, before[1])


def test_an_off_centre_lens_moves_core_and_annulus_with_it() -> None:
    offset = np.array([[3 * SCALE, -2 * SCALE]])
    centred = hybrids.geometry(np.array([1.5]), np.array([1.2]), (32, 32))
    moved = hybrids.geometry(np.array([1.5]), np.array([1.2]), (32, 32), centre_N2=offset)
    np.testing.assert_array_equal(moved.core, np.roll(centred.core, (-2, 3), axis=(1, 2)))
    np.testing.assert_array_equal(moved.annulus, np.roll(centred.annulus, (-2, 3), axis=(1, 2)))


def grid(size: int, centre: tuple[float, float] = (0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(size) - (size - 1) / 2
    return axis[None, :] - centre[0], axis[:, None] - centre[1]


@given(st.integers(0, 10_000), st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
@settings(max_examples=50, deadline=None)
def test_ring_averaging_keeps_flux_and_radial_profile(seed: int, dx: float, dy: float) -> None:
    image = np.random.default_rng(seed).normal(size=(2, 2, 24, 24))
    x, y = grid(24, (dx, dy))
    r = np.hypot(x, y)
    averaged = hybrids.ring_average(image, np.broadcast_to(r, (2, 24, 24)))
    np.testing.assert_allclose(averaged.sum(axis=(2, 3)), image.sum(axis=(2, 3)), atol=1e-6)
    for node in range(int(r.max()) + 2):
        hat = np.clip(1 - np.abs(r - node), 0, None)
        np.testing.assert_allclose((averaged * hat).sum(axis=(2, 3)), (image * hat).sum(axis=(2, 3)), atol=1e-6)


def test_ring_averaging_leaves_nothing_but_the_profile() -> None:
    """Pixels at one radius are equal, whatever the arc looked like; so no asymmetry is left to see."""
    rng = np.random.default_rng(3)
    x, y = grid(32)
    r = np.hypot(x, y)
    averaged = hybrids.ring_average(rng.normal(size=(1, 1, 32, 32)), r[None])[0, 0]
    for value in np.unique(np.round(r, 9)):
        same = averaged[np.isclose(r, value)]
        np.testing.assert_allclose(same, same[0], atol=1e-9)


def test_ring_averaging_hardly_changes_a_smooth_symmetric_image() -> None:
    x, y = grid(64)
    r = np.hypot(x, y)
    ring = np.exp(-0.5 * ((r - 7) / 2) ** 2)  # an Einstein ring of 1.8" in 1.2" seeing
    averaged = hybrids.ring_average(ring[None, None], r[None])[0, 0]
    assert np.abs(averaged - ring).max() < 0.04 * ring.max()
    np.testing.assert_allclose(hybrids.ring_average(averaged[None, None], r[None])[0, 0], averaged, atol=1e-7)


def test_the_radial_hybrid_is_the_control_plus_a_ring_of_the_arcs_flux() -> None:
    _, control = images(4, size=64)
    x, y = grid(64)
    arc = np.exp(-0.5 * ((np.hypot(x, y) - 6) / 1.5) ** 2) * (1 + np.cos(np.arctan2(y, x)))
    positive = (control + arc).astype(np.float32)
    where = hybrids.geometry(np.full(3, 6 * SCALE), np.full(3, 1.2), (64, 64))
    added = hybrids.ring_averaged_arc(positive, control, where) - control
    np.testing.assert_allclose(added.sum(axis=(2, 3)), arc.sum(), rtol=1e-4)
    np.testing.assert_allclose(added, added[..., ::-1], atol=2e-5)


def test_the_radial_hybrid_of_a_pair_without_an_arc_is_its_control() -> None:
    _, control = images(5)
    where = hybrids.geometry(np.full(3, 1.0), np.full(3, 1.2), (32, 32))
    np.testing.assert_array_equal(hybrids.ring_averaged_arc(control, control, where), control)
