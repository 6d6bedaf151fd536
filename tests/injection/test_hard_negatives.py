"""What a hard negative promises: the arc is gone, its radial profile stays, and no single number gives it away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dark_halo_scope.injection.hard_negatives import SHUFFLES, shuffle_blocks, shuffle_in_rings
from dark_halo_scope.injection.stamp_config import HardNegativeSettings
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.psf import Psf
from dark_halo_scope.lensing.render import FineImage, convolve_bands, fine_grid, render_fine
from dark_halo_scope.lensing.sources import SersicSource

PSF = Psf("moffat", 1.0)
CENTRE = (0.08, -0.05)


def _arc(seed: int = 0, theta_e: float = 1.6) -> FineImage:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    lens = Lens(theta_e, 0.75, rng.uniform(0, np.pi), 0.02, -0.01, *CENTRE)
    source = SersicSource(CENTRE[0] + 0.35 * np.cos(angle), CENTRE[1] + 0.35 * np.sin(angle), 0.25, 1.0, 0.8, 0.3)
    return render_fine(lens, source)


def _radius(fine: FineImage) -> np.ndarray:
    axis = fine_grid(fine.size, fine.oversampling, fine.pixel_scale)
    return np.hypot(axis[None, :] - CENTRE[0], axis[:, None] - CENTRE[1])


def _ring_sums(fine: FineImage) -> np.ndarray:
    ring = (_radius(fine) / (fine.pixel_scale / fine.oversampling)).astype(int)
    return np.bincount(ring.ravel(), fine.values.ravel())


def _stamp(fine: FineImage) -> np.ndarray:
    return convolve_bands(fine, [PSF], [1.0])[0].astype(float)


@given(st.integers(0, 2**32 - 1), st.floats(-0.13, 0.13), st.floats(-0.13, 0.13))
@settings(max_examples=25, deadline=None)
def test_pixels_only_change_places_within_their_ring(seed: int, x: float, y: float) -> None:
    rng = np.random.default_rng(seed)
    fine = FineImage(rng.random((64, 64)) * (rng.random((64, 64)) < 0.5), 4, 0.262)
    shuffled = shuffle_in_rings(fine, rng, (x, y))
    axis = fine_grid(16, 4, 0.262)
    ring = (np.hypot(axis[None, :] - x, axis[:, None] - y) / (0.262 / 4)).astype(int)
    for number in np.unique(ring):
        here = ring == number
        np.testing.assert_array_equal(np.sort(shuffled.values[here]), np.sort(fine.values[here]))


@pytest.mark.parametrize("kind", sorted(SHUFFLES))
def test_the_radial_profile_stays(kind: str) -> None:
    fine = _arc()
    shuffled = SHUFFLES[kind](fine, np.random.default_rng(1), CENTRE, HardNegativeSettings())
    np.testing.assert_allclose(_ring_sums(shuffled), _ring_sums(fine), rtol=1e-9, atol=1e-15)
    assert shuffled.flux == pytest.approx(fine.flux, rel=1e-12)


def test_the_profile_after_the_psf_stays_within_a_few_per_cent_of_the_peak() -> None:
    fine = _arc()
    before, after = _stamp(fine), _stamp(shuffle_in_rings(fine, np.random.default_rng(1), CENTRE))
    axis = (np.arange(64) - 31.5) * 0.262
    ring = (np.hypot(axis[None, :] - CENTRE[0], axis[:, None] - CENTRE[1]) / 0.262).astype(int)
    counts = np.bincount(ring.ravel())
    profiles = [np.bincount(ring.ravel(), image.ravel()) / counts for image in (before, after)]
    np.testing.assert_allclose(profiles[1], profiles[0], atol=0.03 * profiles[0].max())


@pytest.mark.parametrize("kind", sorted(SHUFFLES))
def test_the_arc_is_gone(kind: str) -> None:
    correlations = []
    for seed in range(8):
        fine = _arc(seed)
        before = _stamp(fine)
        after = _stamp(SHUFFLES[kind](fine, np.random.default_rng(seed), CENTRE, HardNegativeSettings()))
        smooth = _stamp(_ring_averaged(fine))
        correlations.append(np.corrcoef((before - smooth).ravel(), (after - smooth).ravel())[0, 1])
    assert abs(np.mean(correlations)) < 0.25


def _ring_averaged(fine: FineImage) -> FineImage:
    ring = (_radius(fine) / (fine.pixel_scale / fine.oversampling)).astype(int)
    mean = np.bincount(ring.ravel(), fine.values.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    return FineImage(mean[ring], fine.oversampling, fine.pixel_scale)


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    return float(np.mean(positive[:, None] > negative[None, :]) + 0.5 * np.mean(positive[:, None] == negative[None, :]))


def _high_pass(images: np.ndarray) -> np.ndarray:
    residual = images - ndimage.gaussian_filter(images, (0, 1.0, 1.0))
    return (residual[:, 16:48, 16:48] ** 2).mean(axis=(1, 2))


def _shuffle_after_psf(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the earlier pipeline did: the stamp's own pixels exchanged in rings one pixel wide."""
    axis = (np.arange(64) - 31.5) * 0.262
    ring = (np.hypot(axis[None, :] - CENTRE[0], axis[:, None] - CENTRE[1]) / 0.262).astype(int)
    out = image.copy()
    for number in range(16):
        out[ring == number] = rng.permutation(image[ring == number])
    return out


def test_no_single_number_tells_it_from_an_arc_free_image_with_the_same_profile() -> None:
    """High-pass power, total variation and peak; shuffled after the PSF, the first gives it away."""
    n, rng = 150, np.random.default_rng(5)
    arcs = [_arc(seed) for seed in range(n)]
    noise = [rng.normal(0.0, 1.0, (n, 64, 64)) for _ in range(3)]
    stamps = [_stamp(fine) for fine in arcs]
    # arc_snr of 20 in this band: visible, not overwhelming.
    scale = np.array([20.0 / np.sqrt((stamp**2).sum()) for stamp in stamps])[:, None, None]
    shuffled = np.array([_stamp(shuffle_in_rings(fine, rng, CENTRE)) for fine in arcs]) * scale + noise[0]
    smooth = np.array([_stamp(_ring_averaged(fine)) for fine in arcs]) * scale + noise[1]
    pixels = np.array([_shuffle_after_psf(stamp, rng) for stamp in stamps]) * scale + noise[2]
    numbers = {
        "high-pass power": _high_pass,
        "total variation": lambda x: np.abs(np.diff(x, axis=-1)).mean(axis=(1, 2)),
        "peak": lambda x: x.max(axis=(1, 2)),
    }
    for name, number in numbers.items():
        # Three standard errors of an AUC of 150 against 150 are 0.10.
        assert abs(_auc(number(shuffled), number(smooth)) - 0.5) < 0.10, name
    assert _auc(_high_pass(pixels), _high_pass(smooth)) > 0.65


def test_equal_seeds_give_equal_shuffles_and_others_do_not() -> None:
    fine = _arc()
    first, second = (shuffle_in_rings(fine, np.random.default_rng(3), CENTRE).values for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, shuffle_in_rings(fine, np.random.default_rng(4), CENTRE).values)


def test_blocks_stay_clumped_where_pixels_do_not() -> None:
    fine = _arc()
    smooth = _stamp(_ring_averaged(fine))
    pixels = _stamp(shuffle_in_rings(fine, np.random.default_rng(1), CENTRE)) - smooth
    blocks = _stamp(shuffle_blocks(fine, np.random.default_rng(1), CENTRE, HardNegativeSettings())) - smooth
    assert np.std(blocks) > 2 * np.std(pixels)


def test_an_image_without_light_stays_as_it_is() -> None:
    dark = FineImage(np.zeros((256, 256)), 4, 0.262)
    for shuffle in SHUFFLES.values():
        assert not shuffle(dark, np.random.default_rng(0), CENTRE, HardNegativeSettings()).values.any()
