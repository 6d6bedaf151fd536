"""The smooth completeness finds a known one, and its intervals hold it."""

import numpy as np
from scipy.special import expit

from dark_halo_scope.evaluation.completeness_config import SurfaceSettings
from dark_halo_scope.evaluation.completeness_surface import Surface, fit_surface, problem

LIMITS = [(0.5, 2.5), (0.0, 1.0)]
SETTINGS = SurfaceSettings(bootstraps=60, grid=(15, 13))


def truth(theta_e: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Not among what the splines can be, and not bilinear on the logit: it saturates at 0.95."""
    return 0.95 * expit(4 * (theta_e - 1.2) - 3 * (z - 0.4) + (theta_e - 1.5) * (z - 0.5))


def fit(n: int, seed: int = 0, weight: np.ndarray | None = None, arcs_per_host: int = 1) -> Surface:
    rng = np.random.default_rng(seed)
    theta_e, z = rng.uniform(0.5, 2.5, n), np.clip(rng.normal(0.45, 0.2, n), 0, 1)
    found = rng.random(n) < truth(theta_e, z)
    weight = np.ones(n) if weight is None else weight
    return fit_surface(theta_e, z, found, weight, np.arange(n) // arcs_per_host, LIMITS, SETTINGS, 0.95, rng)


def on_grid(surface: Surface) -> np.ndarray:
    return truth(*np.meshgrid(surface.first, surface.second, indexing="ij"))


def test_it_comes_near_the_true_completeness_everywhere() -> None:
    surface = fit(30_000)
    assert np.abs(surface.value - on_grid(surface)).max() < 0.08
    assert np.abs(surface.value - on_grid(surface)).mean() < 0.015


def test_its_intervals_hold_the_true_completeness_at_nine_points_in_ten_and_more() -> None:
    covered = []
    for seed in range(12):
        surface = fit(1500, seed)
        covered.append(np.mean((surface.low <= on_grid(surface)) & (on_grid(surface) <= surface.high)))
    assert 0.90 <= np.mean(covered) <= 0.99


def test_more_injections_narrow_it_and_points_without_any_are_the_least_sure() -> None:
    few, many = fit(1000), fit(16_000)
    assert np.median(many.high - many.low) < 0.5 * np.median(few.high - few.low)
    assert many.sd[:, 6].mean() < many.sd[:, -1].mean()
    assert np.all((few.low > 0) & (few.high < 1) & (few.low <= few.value) & (few.value <= few.high))


def test_arcs_that_share_hosts_are_not_taken_for_more_than_they_are() -> None:
    rng = np.random.default_rng(0)
    host = np.repeat(np.arange(300), 10)
    theta_e, z = np.repeat(rng.uniform(0.5, 2.5, 300), 10), np.repeat(rng.uniform(0, 1, 300), 10)
    found = np.repeat(rng.random(300) < truth(theta_e[::10], z[::10]), 10)
    arguments = (theta_e, z, found, np.ones(3000))
    together = fit_surface(*arguments, host, LIMITS, SETTINGS, 0.95, np.random.default_rng(1))
    apart = fit_surface(*arguments, np.arange(3000), LIMITS, SETTINGS, 0.95, np.random.default_rng(1))
    assert np.median(together.sd / apart.sd) > 2


def test_the_scale_of_weights_does_not_matter() -> None:
    np.testing.assert_allclose(fit(500).value, fit(500, weight=np.full(500, 17.0)).value, atol=1e-6)


def test_the_same_seed_gives_the_same_surface() -> None:
    np.testing.assert_array_equal(fit(500).high, fit(500).high)


def test_without_misses_there_is_no_surface() -> None:
    assert problem(np.ones(100, dtype=bool), SETTINGS) == "not measurable: 0 injections not found, 20 are needed"
    assert problem(np.arange(100) < 50, SETTINGS) is None
