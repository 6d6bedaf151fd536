"""AUC by region of the sky: leaving a region out is done by arithmetic, and must equal doing it."""

import numpy as np
import pytest

from dark_halo_scope.evaluation.finder_images import FinderImages
from dark_halo_scope.evaluation.finder_regions import leave_one_out, measure_regions, region_of
from dark_halo_scope.evaluation.intervals import delong
from dark_halo_scope.evaluation.validation_config import ValidationSettings


def draw(n: int = 3000, regions: int = 24, spread: float = 0.0, seed: int = 0) -> tuple[FinderImages, np.ndarray]:
    """Images whose lenses are told apart as well everywhere (spread 0), or not."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, regions, n)
    positive = rng.random(n) < 0.2
    # Rounded, so that there are ties.
    logit = np.round(rng.normal(positive * (1.5 + rng.normal(0, spread, regions)[place]), 1), 1)
    empty = np.full(n, np.nan)
    return FinderImages(logit, positive, np.arange(n), empty, place * 256, {}, {}), place


def test_the_auc_without_a_region_is_that_of_the_other_images() -> None:
    images, place = draw()
    without = leave_one_out(images.logit, images.positive, place, 24)
    for region in range(24):
        rest = place != region
        expected, _ = delong(images.logit[rest & images.positive], images.logit[rest & ~images.positive])
        assert without[region] == pytest.approx(expected, abs=1e-12)


def test_a_region_that_has_all_lenses_cannot_be_left_out() -> None:
    images, _ = draw()
    without = leave_one_out(images.logit, images.positive, np.where(images.positive, 0, 1), 2)
    assert np.isnan(without).all()


def test_a_finder_that_depends_on_the_region_has_a_wider_interval() -> None:
    widths = []
    for spread in (0.0, 2.0):
        result = measure_regions(draw(spread=spread)[0], ValidationSettings())
        low, high = result["auc"]["interval"]
        widths.append(high - low)
        assert result["counts"]["regions"] == 24
        assert result["range"][0] <= result["auc"]["value"] <= result["range"][1]
    assert widths[1] > 2 * widths[0]


def test_regions_without_which_the_auc_changes_most_come_first() -> None:
    images, place = draw()
    logit = images.logit.copy()
    logit[(place == 7) & images.positive] -= 5
    worse = FinderImages(logit, images.positive, images.host, images.weight, images.cell, {}, {})
    result = measure_regions(worse, ValidationSettings(regions_named=3))
    assert len(result["regions"]) == 3
    assert result["regions"][0]["region"] == 7
    assert result["regions"][0]["without"] > result["auc"]["value"]
    assert result["regions"][0]["auc"]["value"] < 0.5


def test_too_few_regions_have_no_spread() -> None:
    result = measure_regions(draw(regions=3)[0], ValidationSettings())
    assert result["auc"]["value"] is None
    assert "3 regions are too few" in result["auc"]["status"]


def test_a_region_is_the_nested_cell_around_its_cells() -> None:
    healpy = pytest.importorskip("healpy")
    rng = np.random.default_rng(1)
    theta, phi = np.arccos(rng.uniform(-1, 1, 500)), rng.uniform(0, 2 * np.pi, 500)
    fine = healpy.ang2pix(128, theta, phi, nest=True)
    assert np.array_equal(region_of(fine, 8), healpy.ang2pix(8, theta, phi, nest=True))
    assert region_of(np.array([-1]), 8)[0] == -1
