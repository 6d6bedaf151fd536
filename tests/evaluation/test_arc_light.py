"""What the estimator of arc light promises, on stamps whose arcs are known."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.arc_light import ArcLight, find_galaxy, measure_light
from dark_halo_scope.evaluation.arc_light_config import ArcLightSettings
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.psf import Psf
from dark_halo_scope.lensing.render import convolve_bands, render_fine
from dark_halo_scope.lensing.sources import SersicSource
from dark_halo_scope.survey.units import magnitude

SIZE = 64
SCALE = 0.262
SIGMA = np.array([0.005, 0.008, 0.015])[:, None, None]
# A galaxy at z ~ 0.5 and a blue source: g, r, z flux relative to r.
GALAXY = np.array([0.25, 1.0, 2.5])[:, None, None]
ARC = 10 ** (-0.4 * np.array([0.35, 0.0, -0.35]))[:, None, None]
PSFS = [Psf("moffat", fwhm) for fwhm in (1.15, 1.0, 0.95)]
SETTINGS = ArcLightSettings()


def _noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, SIZE, SIZE)) * SIGMA


def _galaxy(x: float = 0.0, y: float = 0.0, q: float = 1.0, flux: float = 10.0) -> np.ndarray:
    """(3, H, W) of a smooth red galaxy of that r flux in nanomaggies, half-light radius near 1 arcsec, after seeing."""
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    radius = np.sqrt((axis[None] - x) ** 2 * q + (axis[:, None] - y) ** 2 / q + 0.36)
    light = np.exp(-7.67 * radius**0.25)
    return flux * GALAXY * light / light.sum()


def _arc(flux: float, theta_e: float = 1.5, offset: float = 0.6) -> np.ndarray:
    """(3, H, W) of an arc and its counter-image of that lensed r flux, through PSFs of psfsize 1.2 to 1.4 arcsec."""
    fine = render_fine(Lens(theta_e, 0.8, 0.3), SersicSource(offset, 0.1, 0.2, 1.0, 0.8, 0.5), SIZE, SCALE)
    image = convolve_bands(fine, PSFS, ARC.ravel())
    return flux * image / image[1].sum()


def _measured(images: np.ndarray, at: tuple[float, float] = (0.0, 0.0)) -> ArcLight:
    return measure_light(images, np.tile(at, (len(images), 1)), SETTINGS)


def test_noise_alone_has_no_light_and_the_stated_scatter() -> None:
    light = _measured(_noise(300))
    pull = light.flux_g / light.sigma_g
    assert abs(pull.mean()) < 4 / np.sqrt(300)
    # The core's colour is noise too, and scatters the sum a little more.
    assert 0.9 < pull.std() < 1.5
    assert np.isnan(light.flux_r).mean() > 0.98


def test_a_galaxy_of_one_colour_leaves_nothing_whatever_its_shape_and_place() -> None:
    shapes = ((0, 0, 1), (0.1, -0.05, 0.8), (0.131, 0.131, 0.6), (-0.6, 0.4, 0.5))
    assert np.abs(_measured(np.stack([_galaxy(*shape) for shape in shapes])).flux_g).max() < 1e-3


@pytest.mark.parametrize("flux", [2.0, 8.0])
def test_g_light_of_a_blue_arc_is_recovered_to_a_half(flux: float) -> None:
    found = np.median(_measured(_noise(20) + _galaxy(q=0.8) + _arc(flux)).flux_g)
    assert 0.5 < found / (flux * ARC[0, 0, 0]) < 0.95


def test_the_colour_of_a_bright_arc_is_recovered() -> None:
    mag_g, mag_r = _measured(_noise(20) + _galaxy(q=0.8) + _arc(6.0)).magnitudes(3.0)
    true = 0.35
    # Of g more is lost than of r, so arcs come out redder than they are.
    assert true - 0.1 < np.nanmedian(mag_g - mag_r) < true + 0.6


def test_wider_arcs_lose_less_than_those_in_the_galaxys_core() -> None:
    share = [np.median(_measured(_noise(20) + _galaxy() + _arc(4.0, t, 0.4 * t)).flux_g) for t in (0.6, 1.0, 1.8)]
    assert share == sorted(share)
    assert share[0] < 0.5 * share[2]


def test_light_grows_in_proportion_to_the_arc() -> None:
    arc, base = _arc(1.0), _noise(1) + _galaxy()
    none, one, two = (_measured(base + flux * arc).flux_g[0] for flux in (0.0, 2.0, 4.0))
    assert two - none == pytest.approx(2 * (one - none), rel=0.1)


def test_an_arc_as_red_as_its_galaxy_has_no_light_as_documented() -> None:
    arc = _arc(4.0)[1] * GALAXY
    assert np.abs(_measured((_galaxy() + arc)[None]).flux_g).max() < 0.02 * 4 * GALAXY[0, 0, 0]


def test_a_full_ring_has_g_light_and_no_r_light() -> None:
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    ring = np.exp(-0.5 * ((np.hypot(axis, axis[:, None]) - 1.8) / 0.4) ** 2)
    light = _measured(_noise(5) + _galaxy() + 2.0 * ARC * ring / ring.sum())
    assert np.median(light.flux_g) > 0.6 * 2.0 * ARC[0, 0, 0]
    assert np.isnan(light.flux_r).all()


def test_an_azimuthal_median_would_take_most_of_an_arc_for_the_galaxy_where_this_does_not() -> None:
    arc = _arc(1.0, offset=0.15)
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    radius = np.hypot(axis, axis[:, None])
    ring = (radius / SCALE).astype(int)
    above = arc[0] - np.array([np.median(arc[0][ring == index]) for index in range(ring.max() + 1)])[ring]
    annulus = (radius >= SETTINGS.inner_arcsec) & (radius < SETTINGS.outer_arcsec)
    assert above[annulus].sum() < 0.25 * arc[0].sum()
    assert _measured((_galaxy() + arc)[None]).flux_g[0] > 0.4 * arc[0].sum()


def test_around_real_red_galaxies_most_of_an_arc_is_recovered_above_a_faint_floor(real_data: Path) -> None:
    """16 DECam galaxies of the colours of luminous red ones, as another pipeline has cut them out, zero point 30."""
    folder = real_data / "des_lrg_backgrounds"
    counts = np.stack([fits.getdata(folder / f"{band}.fits") for band in "grz"], axis=1).astype(np.float64)
    edge = (counts.shape[-1] - SIZE) // 2
    images = counts[..., edge : edge + SIZE, edge : edge + SIZE] * 10 ** (-0.4 * (30.0 - 22.5))
    floor = _measured(images).flux_g
    # Half of them leave less than an arc of g = 23 has; the brightest, bluer outside, leave more.
    assert magnitude(np.median(floor)) > 23.0
    arc = _arc(2.0)
    share = (_measured(images + arc).flux_g - floor) / arc[0].sum()
    assert 0.65 < np.median(share) < 0.95
    assert share.min() > 0.5


def test_a_position_wrong_by_less_than_an_arcsecond_changes_nothing() -> None:
    images = _noise(5) + _galaxy(0.2, -0.1) + _arc(2.0)
    right, wrong = _measured(images, (0.2, -0.1)), _measured(images, (-0.4, 0.5))
    assert wrong.flux_g.tolist() == right.flux_g.tolist()


def test_a_brighter_neighbour_beyond_the_radius_is_not_taken_for_the_galaxy() -> None:
    image = _galaxy() + _galaxy(5.0, 0.0, flux=100.0)
    assert np.hypot(*find_galaxy(image[2], np.zeros(2), 1.0)) < 0.2


def test_a_stamp_with_a_nan_is_not_measured_and_the_others_are() -> None:
    images = _noise(3)
    images[1, 0, 5, 5] = np.nan
    light = _measured(images)
    assert np.isfinite(light.flux_g).tolist() == [True, False, True]


def test_faint_light_has_no_magnitude() -> None:
    light = ArcLight(np.array([1.0, 1.0, -1.0]), np.array([0.1, 0.4, 0.1]), np.array([2.0, 2.0, 2.0]))
    mag_g, mag_r = light.magnitudes(3.0)
    assert mag_g[0] == 22.5
    assert mag_r[0] == pytest.approx(22.5 - 2.5 * np.log10(2))
    assert np.isnan([*mag_g[1:], *mag_r[1:]]).all()


def test_stamps_too_small_for_the_annulus_say_what_to_lower() -> None:
    with pytest.raises(BadInputError, match="lower outer_arcsec"):
        measure_light(np.zeros((1, 3, 32, 32)), np.zeros((1, 2)), SETTINGS)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for values in ({"inner_arcsec": 5.0}, {"core_arcsec": 1.0}, {"sky_gap_arcsec": 3.0}, {"bias_edges": (22.0, 21.0)}):
        with pytest.raises(ValueError, match="must"):
            ArcLightSettings(**values)
