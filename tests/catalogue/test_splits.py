"""A cell is in one split, by a hash that anyone can redo, and nothing is on both sides."""

import hashlib
import sys

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from dark_halo_scope.catalogue.splits import (
    N_CELLS,
    assert_disjoint,
    healpix_cell,
    near_other_split,
    split_of_cells,
)
from dark_halo_scope.core.errors import BadInputError, CorruptDataError

ARCSEC = 1 / 3600


def stored(ra, dec):
    cells = healpix_cell(ra, dec)
    return cells, split_of_cells(cells)


def border_pair(ra: float, span: float, distance: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Two positions `distance` arcsec apart in Dec near this RA whose splits differ, found by bisection in Dec."""
    for low in np.arange(-30.0, 30.0, span):
        high = low + span
        split = split_of_cells(healpix_cell([ra, ra], [low, high]))
        if split[0] != split[1]:
            while high - low > 1e-9:
                middle = (low + high) / 2
                if split_of_cells(healpix_cell([ra], [middle]))[0] == split[0]:
                    low = middle
                else:
                    high = middle
            return np.array([ra, ra]), np.array([low - distance / 2 * ARCSEC, low + distance / 2 * ARCSEC])
    raise AssertionError("no border found")


def test_no_cell_is_made_up_without_healpy(monkeypatch):
    """The earlier pipeline's executors lacked it and took a hash of each object's position: no patch of sky."""
    monkeypatch.setitem(sys.modules, "healpy", None)
    with pytest.raises(ImportError, match="healpy"):
        healpix_cell(45.0, 10.0)


def test_cells_are_nested_nside_128():
    # The poleward corner of each of the four northern base pixels is its last cell in nested order.
    assert healpix_cell([45.0, 135.0, 225.0, 315.0], [90.0] * 4).tolist() == [16383, 32767, 49151, 65535]
    assert healpix_cell([0.0, 359.9999999], [50.0, 50.0]).tolist() == [11194, 55157], "RA 0 is a border there"


@pytest.mark.parametrize("cell", [0, 1, 4242, 100000, N_CELLS - 1])
def test_a_cells_split_is_the_published_hash(cell):
    u = int.from_bytes(hashlib.sha256(f"{cell}_42".encode()).digest()[:4], "big") / 2**32
    expected = "train" if u < 0.70 else "val" if u < 0.85 else "test"
    assert split_of_cells([cell]).tolist() == [expected]


def test_known_splits_do_not_change():
    # printf "0_42" | sha256sum, and so on: first four bytes / 2^32.
    fractions = (0.521901, 0.363064, 0.793969, 0.027536, 0.469883, 0.107322, 0.380836, 0.972599)
    expected = ["train" if u < 0.70 else "val" if u < 0.85 else "test" for u in fractions]
    assert split_of_cells(np.arange(8)).tolist() == expected


def test_fractions_of_the_sky_are_70_15_15():
    split = split_of_cells(np.arange(N_CELLS))
    fractions = [np.mean(split == name) for name in ("train", "val", "test")]
    assert fractions == pytest.approx([0.70, 0.15, 0.15], abs=0.004)


def test_another_seed_gives_other_splits():
    assert (split_of_cells(np.arange(1000)) != split_of_cells(np.arange(1000), seed=43)).mean() > 0.3


@pytest.mark.parametrize("cell", [-1, N_CELLS, 10**9])
def test_an_unknown_cell_is_an_error(cell):
    with pytest.raises(BadInputError, match="unknown HEALPix cell"):
        split_of_cells([5, cell])


def test_a_cell_that_is_no_integer_is_an_error():
    with pytest.raises(BadInputError, match="unknown HEALPix cell"):
        split_of_cells([np.nan])


@pytest.mark.parametrize(("ra", "dec"), [(361.0, 0.0), (360.0, 0.0), (-1.0, 0.0), (10.0, 91.0), (np.nan, 0.0)])
def test_a_position_off_the_sky_has_no_cell(ra, dec):
    with pytest.raises(BadInputError, match="no HEALPix cell"):
        healpix_cell([10.0, ra], [0.0, dec])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 359.99), st.floats(-89, 89)), min_size=1, max_size=20), st.randoms())
def test_a_rows_split_does_not_depend_on_its_neighbours(positions, random):
    ra, dec = np.array(positions).T
    shuffled = list(range(len(ra)))
    random.shuffle(shuffled)
    assert (stored(ra, dec)[1][shuffled] == stored(ra[shuffled], dec[shuffled])[1]).all()


def test_clean_rows_pass_the_leak_gate():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 2000), np.degrees(np.arcsin(rng.uniform(-1, 1, 2000)))
    assert_disjoint(ra, dec, *stored(ra, dec))


def test_an_object_on_both_sides_of_a_cell_border_fires_the_leak_gate():
    ra, dec = border_pair(123.4, 0.05)
    with pytest.raises(CorruptDataError, match="both sides of a split"):
        assert_disjoint(ra, dec, *stored(ra, dec))


def test_an_object_on_both_sides_through_ra_0_fires_the_leak_gate():
    for dec in np.arange(-40.0, 40.0, 0.1):
        ra = np.array([0.25 * ARCSEC, 360.0 - 0.25 * ARCSEC])
        cells, split = stored(ra, [dec, dec])
        if split[0] != split[1]:
            with pytest.raises(CorruptDataError, match="both sides of a split"):
                assert_disjoint(ra, [dec, dec], cells, split)
            assert near_other_split(ra, [dec, dec], 1.0).all()
            return
    raise AssertionError("no border at RA 0")


def test_a_pair_in_one_split_is_no_leak():
    ra, dec = np.array([150.0, 150.0]), np.array([2.0, 2.0 + 0.5 * ARCSEC])
    cells, split = stored(ra, dec)
    assert split[0] == split[1]
    assert_disjoint(ra, dec, cells, split)


def test_a_wrong_cell_and_a_wrong_split_are_found():
    ra, dec = np.array([150.0]), np.array([2.0])
    cells, split = stored(ra, dec)
    with pytest.raises(CorruptDataError, match="not their position's"):
        assert_disjoint(ra, dec, cells + 1, split)
    with pytest.raises(CorruptDataError, match="not their cell's"):
        assert_disjoint(ra, dec, cells, np.where(split == "test", "train", "test"))


def test_rows_near_another_split_are_all_found():
    """Every row with a partner of another split within the radius is near a border; few others are."""
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    coordinates = SkyCoord(ra, dec, unit="deg").directional_offset_by(
        rng.uniform(0, 360, 4000) * units.deg, 60 * units.arcsec
    )
    other = stored(coordinates.ra.deg % 360, coordinates.dec.deg)[1]
    near = near_other_split(ra, dec, 60.0)
    assert near[other != stored(ra, dec)[1]].all()
    assert near.mean() < 0.2
