"""What matching hosts promises: like with like, each host once, and nobody matched at any price."""

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.matching import host_photometry, match_hosts, match_quality, pooled_deviation
from dark_halo_scope.evaluation.realism_config import MatchSettings

SIZE = 64
SCALE = 0.262


def _galaxies(flux_r: np.ndarray, gr: float, rz: float, width: float, offset: float = 0.0) -> np.ndarray:
    """(N, 3, 64, 64) round Gaussian galaxies of that total r flux and colour, `offset` arcsec right of the centre."""
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    light = np.exp(-0.5 * ((axis[None, :] - offset) ** 2 + axis[:, None] ** 2) / width**2)
    colour = 10 ** (-0.4 * np.array([gr, 0.0, -rz]))
    return flux_r[:, None, None, None] * colour[:, None, None] * light / light.sum()


def test_magnitude_and_colours_are_those_of_the_light_in_the_aperture() -> None:
    images = _galaxies(np.array([10.0, 100.0]), gr=1.5, rz=0.8, width=0.3) + 0.02  # on a flat sky
    found = host_photometry(images, np.zeros((2, 2)), MatchSettings())
    # Within 1 arcsec, 3.3 standard deviations, lies all but half a per cent.
    np.testing.assert_allclose(found["mag_r"], [20.0, 17.5], atol=0.02)
    np.testing.assert_allclose(found["colour_gr"], 1.5, atol=1e-6)
    np.testing.assert_allclose(found["colour_rz"], 0.8, atol=1e-6)


def test_a_galaxy_off_the_centre_has_the_same_photometry() -> None:
    settings = MatchSettings()
    centred = host_photometry(_galaxies(np.array([50.0]), 1.0, 1.0, 0.5), np.zeros((1, 2)), settings)
    shifted = host_photometry(_galaxies(np.array([50.0]), 1.0, 1.0, 0.5, 3 * SCALE), np.zeros((1, 2)), settings)
    for name, values in centred.items():
        np.testing.assert_allclose(shifted[name], values, atol=1e-6, err_msg=name)


def test_a_compact_galaxy_is_more_concentrated() -> None:
    compact, extended = (
        host_photometry(_galaxies(np.array([50.0]), 1, 1, width), np.zeros((1, 2)), MatchSettings())["concentration"]
        for width in (0.3, 0.9)
    )
    assert compact > extended + 0.2


def test_a_galaxy_without_light_or_with_a_broken_pixel_has_no_photometry() -> None:
    images = _galaxies(np.array([50.0, -50.0, 50.0]), 1.0, 1.0, 0.5)
    images[2, 0, 3, 3] = np.nan
    found = host_photometry(images, np.zeros((3, 2)), MatchSettings())
    for name, values in found.items():
        assert np.isfinite(values).tolist() == [True, False, False], name


def test_a_stamp_too_small_to_have_sky_is_refused_with_what_to_change() -> None:
    with pytest.raises(BadInputError, match="lower sky_arcsec in the settings of realism"):
        host_photometry(np.ones((1, 3, 32, 32)), np.zeros((1, 2)), MatchSettings())


def test_every_lens_gets_its_twin_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    injections = rng.normal(size=(200, 3))
    twins = rng.permutation(200)[:40]
    found = match_hosts(injections[twins], injections, caliper=0.1)
    assert found.lens.tolist() == list(range(40))
    assert found.first.tolist() == twins.tolist()
    np.testing.assert_allclose(found.distance, 0, atol=1e-12)


def test_no_injection_serves_twice_not_even_in_the_second_sample() -> None:
    rng = np.random.default_rng(1)
    found = match_hosts(rng.normal(size=(80, 2)), rng.normal(size=(300, 2)), caliper=1.0)
    used = np.concatenate([found.first, found.second[found.second >= 0]])
    assert len(found.lens) > 70
    assert (found.second >= 0).sum() > 60
    assert len(np.unique(used)) == len(used)


def test_a_lens_like_no_host_is_left_out_rather_than_matched_at_any_price() -> None:
    rng = np.random.default_rng(2)
    lenses = np.concatenate([rng.normal(size=(20, 2)), [[50.0, 50.0]], [[np.nan, 0.0]]])
    found = match_hosts(lenses, rng.normal(size=(100, 2)), caliper=0.2)
    assert not set(found.lens) & {20, 21}
    assert (found.distance <= 0.2).all()


def test_units_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    lenses, injections = rng.normal(size=(30, 2)), rng.normal(size=(100, 2))
    units = np.array([1.0, 1000.0])
    one, other = (match_hosts(lenses * unit, injections * unit, 1.0) for unit in (np.ones(2), units))
    assert one.first.tolist() == other.first.tolist()


@pytest.mark.parametrize(("lenses", "injections"), [(0, 10), (10, 0), (1, 10)])
def test_too_few_to_match_give_no_match(lenses: int, injections: int) -> None:
    found = match_hosts(np.zeros((lenses, 2)), np.zeros((injections, 2)), 1.0)
    assert len(found.lens) == len(found.first) == len(found.second) == 0


def test_matching_removes_the_difference_that_quality_reports() -> None:
    rng = np.random.default_rng(4)
    lenses, injections = {"mag_r": rng.normal(0.7, 1, 100)}, {"mag_r": rng.normal(0, 1, 2000)}
    found = match_hosts(lenses["mag_r"][:, None], injections["mag_r"][:, None], 0.2)
    quality = match_quality(lenses, injections, found)["mag_r"]
    assert quality["difference_before"] == pytest.approx(0.7, abs=0.25)
    assert abs(quality["difference_after"] or 0) < 0.05
    assert quality["matched"] == pytest.approx(quality["lenses"], abs=0.05)


def test_what_is_not_known_has_no_difference() -> None:
    found = match_hosts(np.arange(5.0)[:, None], np.arange(9.0)[:, None], 1.0)
    quality = match_quality({"psfsize_r": np.full(5, np.nan)}, {"psfsize_r": np.ones(9)}, found)["psfsize_r"]
    assert quality["lenses"] is None
    assert quality["difference_after"] is None


def test_a_variable_that_never_varies_is_no_division_by_zero() -> None:
    assert pooled_deviation(np.ones((4, 1)), np.ones((5, 1))).tolist() == [1.0]
