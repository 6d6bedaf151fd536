"""A crossmatch sees the sphere: no seam at RA 0/360, no stretch at the poles, no float32."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.catalogue.crossmatch import close_pairs, groups_within, nearest, separation, unit_vectors

ARCSEC = 1 / 3600

positions = st.tuples(st.floats(0, 359.999999), st.floats(-90, 90))


def test_a_pair_across_ra_0_is_found():
    assert close_pairs([359.99999, 0.00001], [0.0, 0.0], 0.5).tolist() == [[0, 1]]


def test_a_pair_across_the_pole_is_found():
    assert close_pairs([10.0, 190.0], [90 - 0.1 * ARCSEC, 90 - 0.1 * ARCSEC], 0.5).tolist() == [[0, 1]]


def test_ra_shrinks_with_declination():
    # One degree of RA at Dec 89.9 is 6.3 arcsec.
    assert separation(10.0, 89.9, 11.0, 89.9)[0] == pytest.approx(3600 * np.cos(np.radians(89.9)), rel=1e-4)


@given(positions, positions)
def test_separation_agrees_with_astropy(one, two):
    expected = SkyCoord(*one, unit="deg").separation(SkyCoord(*two, unit="deg")).to_value(units.arcsec)
    assert separation(one[0], one[1], two[0], two[1])[0] == pytest.approx(expected, abs=1e-4, rel=1e-9)


@pytest.mark.parametrize(("distance", "found"), [(10.999, True), (11.001, False)])
def test_the_radius_is_the_radius(distance, found):
    index, arcsec = nearest([150.0], [2.0], [150.0], [2.0 + distance * ARCSEC], 11.0)
    assert bool(index[0] == 0) is found
    assert np.isfinite(arcsec[0]) == found


def test_the_nearest_of_several_is_taken_with_its_separation():
    index, arcsec = nearest([0.0], [0.0], [359.9999, 0.0002, 5.0], [0.0, 0.0, 0.0], 5.0)
    assert index.tolist() == [0]
    assert arcsec[0] == pytest.approx(0.36, abs=1e-6)


def test_empty_lists_match_nothing():
    assert nearest([1.0], [1.0], [], [], 5.0)[0].tolist() == [-1]
    assert nearest([], [], [1.0], [1.0], 5.0)[0].tolist() == []
    assert close_pairs([], [], 5.0).shape == (0, 2)


def test_chains_of_close_rows_are_one_group_numbered_by_first_row():
    dec = np.array([10.0, 0.0, 1.5 * ARCSEC, 3.0 * ARCSEC, 10.0 + ARCSEC])
    assert groups_within(np.full(5, 20.0), dec, 2.0).tolist() == [0, 1, 1, 1, 0]


def test_float32_degrees_are_refused():
    with pytest.raises(TypeError, match="float64"):
        unit_vectors(np.array([180.0], dtype=np.float32), np.array([0.0]))
