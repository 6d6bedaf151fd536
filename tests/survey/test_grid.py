"""The brick grid is that of the Legacy Surveys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.bricks import read_bricks
from dark_halo_scope.survey.grid import brick_at, brickid_at, bricks_of_ids
from dark_halo_scope.survey.names import checked_brickname
from tiny_survey import whole_sweep


def test_ids_names_and_boxes_are_those_of_a_real_survey_bricks_file(real_data):
    [row] = read_bricks(real_data / "legacysurvey/legacypipe/survey-bricks.fits.gz").to_pylist()
    box = brick_at(row["RA"], row["DEC"])
    assert (str(box.name), int(box.brickid)) == (row["BRICKNAME"], row["BRICKID"])
    assert (int(box.brickrow), int(box.brickcol)) == (row["BRICKROW"], row["BRICKCOL"])
    for name in ("ra", "dec", "ra1", "ra2", "dec1", "dec2"):
        assert float(getattr(box, name)) == pytest.approx(row[name.upper()], abs=1e-8)


def test_real_objects_lie_in_the_brick_that_their_catalogue_says(real_data):
    columns = ["RA", "DEC", "BRICKID", "BRICKNAME"]
    table = whole_sweep(real_data / "legacysurvey/dr10/cat-ls-dr10.fits", columns).to_pandas()
    box = brick_at(table["RA"], table["DEC"])
    assert np.array_equal(box.brickid, table["BRICKID"])
    assert np.array_equal(box.name, table["BRICKNAME"])


@given(ra=st.floats(0, 360, exclude_max=True), dec=st.floats(-90, 90))
def test_the_owner_of_a_position_contains_it(ra, dec):
    box = brick_at(ra, dec)
    assert box.ra1 - 1e-9 <= ra <= box.ra2 + 1e-9
    assert box.dec1 - 1e-9 <= dec <= box.dec2 + 1e-9
    assert checked_brickname(str(box.name)) == str(box.name)


def test_right_ascension_wraps():
    assert brickid_at(360.1, 5.0) == brickid_at(0.1, 5.0) == brickid_at(-359.9, 5.0)


def test_there_are_662174_bricks_with_a_name_each():
    boxes = bricks_of_ids(np.arange(1, 662175, 97))
    assert np.array_equal(brickid_at(boxes.ra, boxes.dec), boxes.brickid)
    with pytest.raises(BadInputError, match="662174"):
        bricks_of_ids([662175])


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/pass", "1102p24", "1102q240", "1102p240/", "9999p240", "", "1102p240\n"]
)
def test_what_is_no_brick_name_never_becomes_a_path(name):
    with pytest.raises(BadInputError, match="not a brick name"):
        checked_brickname(name)
