"""Sweeps of DR9 and DR10 are read alike; what is of another release, mixed, renamed or cut short is refused."""

from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.sweeps import check_one_version, data_release, read_sweep
from dark_halo_scope.survey.units import depth_inverse_variance, depth_magnitude, magnitude, nanomaggies
from tiny_survey import whole_sweep

COLUMNS = ["RELEASE", "BRICKNAME", "OBJID", "TYPE", "RA", "DEC", "FLUX_R", "FLUX_I", "SERSIC", "DCHISQ"]


@pytest.fixture
def dr10(real_data) -> Path:
    return real_data / "legacysurvey/dr10/cat-ls-dr10.fits"


def test_lower_case_dr10_and_upper_case_dr9_give_the_same_names(real_data, dr10):
    new = whole_sweep(dr10, COLUMNS)
    old = whole_sweep(real_data / "legacysurvey/dr9_fastspecfit/tractor-1054p567.fits", COLUMNS)
    assert new.column_names == old.column_names == COLUMNS
    assert (new.num_rows, old.num_rows) == (66, 1)
    assert set(new["TYPE"].to_pylist()) <= {"PSF", "REX", "EXP", "DEV", "SER", "DUP"}
    assert new.schema.field("DCHISQ").type == pa.list_(pa.float32(), 5)


def test_a_release_without_i_band_has_nulls_there(real_data, dr10):
    old = whole_sweep(real_data / "legacysurvey/dr9_fastspecfit/tractor-1054p567.fits", COLUMNS)
    assert old["FLUX_I"].null_count == 1
    assert whole_sweep(dr10, COLUMNS)["FLUX_I"].null_count == 0


def test_values_are_those_that_fitsio_reads(dr10):
    assert np.array_equal(
        whole_sweep(dr10, ["FLUX_R"])["FLUX_R"].to_numpy(), fitsio.read(dr10, columns=["flux_r"])["flux_r"]
    )


@pytest.mark.parametrize("name", ["sweep-310m005-320p000.fits", "sweep-320m005-330p000.fits", "tractor-3301m002.fits"])
def test_dr8_is_refused_with_the_reason(real_data, name):
    with pytest.raises(BadInputError, match=r"DR8 or before.*SERSIC"):
        whole_sweep(real_data / "legacysurvey/dr8_desitarget" / name, ["RA"])


def test_the_release_asked_for_is_enforced(dr10):
    assert whole_sweep(dr10, ["RA"], releases=["dr10"]).num_rows == 66
    with pytest.raises(BadInputError, match=r"catalogue of dr10.*dr9 is expected"):
        whole_sweep(dr10, ["RA"], releases=["dr9"])


def test_a_missing_column_is_named(dr10):
    with pytest.raises(BadInputError, match="NO_SUCH"):
        whole_sweep(dr10, ["RA", "NO_SUCH"])


def _edited(source: Path, target: Path, **changes) -> Path:
    rows = fitsio.read(source)
    for name, value in changes.items():
        rows[name][3] = value
    fitsio.write(target, rows)
    return target


def test_rows_of_two_releases_in_one_file_are_refused(dr10, tmp_path):
    with pytest.raises(BadInputError, match=r"\[9010, 10000\] are not of one data release"):
        whole_sweep(_edited(dr10, tmp_path / "mixed.fits", release=9010), ["RA"])


def test_a_wrong_brickname_is_refused_with_row_and_right_name(dr10, tmp_path):
    with pytest.raises(BadInputError, match=r"row 3 has BRICKNAME '1926m280'.*1926m282"):
        whole_sweep(_edited(dr10, tmp_path / "renamed.fits", brickname="1926m280"), ["RA"])


def test_rows_read_in_parts_are_those_of_the_file(real_data, dr10, survey):
    tables = list(read_sweep(dr10, COLUMNS, part_rows=20))
    assert [table.num_rows for table in tables] == [20, 20, 20, 6]
    assert pa.concat_tables(tables).equals(whole_sweep(dr10, COLUMNS))
    sweep, photoz = (survey.verified(uri) for uri in survey.sweep_pairs()[0])
    assert pa.concat_tables(read_sweep(sweep, ["RA"], photoz, part_rows=301)).equals(whole_sweep(sweep, ["RA"], photoz))


def test_a_sweep_without_rows_is_one_empty_table(dr10, tmp_path):
    fitsio.write(tmp_path / "empty.fits", fitsio.read(dr10)[:0])
    [table] = read_sweep(tmp_path / "empty.fits", COLUMNS)
    assert (table.num_rows, table.column_names) == (0, COLUMNS)


def test_parts_are_checked_as_the_file_is(dr10, tmp_path, survey):
    """Releases of different parts are compared, and rows are numbered from the start of the file."""
    with pytest.raises(BadInputError, match=r"\[9010, 10000\] are not of one data release"):
        list(read_sweep(_edited(dr10, tmp_path / "mixed.fits", release=9010), ["RA"], part_rows=1))
    with pytest.raises(BadInputError, match=r"row 3 has BRICKNAME '1926m280'"):
        list(read_sweep(_edited(dr10, tmp_path / "renamed.fits", brickname="1926m280"), ["RA"], part_rows=2))
    sweep, photoz = (survey.verified(uri) for uri in survey.sweep_pairs()[0])
    other = _edited(photoz, tmp_path / "other-pz.fits", OBJID=-1)
    with pytest.raises(BadInputError, match=r"not row by row: OBJID differs in row 3"):
        list(read_sweep(sweep, ["RA"], other, part_rows=2))


def test_10_0_beside_10_1_is_refused_and_either_alone_is_not():
    one, other = "s3://b/sweep/10.1/sweep-a.fits", "s3://b/sweep/10.0/sweep-b.fits"
    check_one_version([one, one])
    check_one_version([other, "elsewhere/sweep-c.fits"])
    with pytest.raises(BadInputError, match=r"10\.0 has defective sub-blobs"):
        check_one_version([one, other])


@pytest.mark.parametrize("missing", [1, 2880, 60_000, 200_000, 241_900])
def test_a_truncated_file_is_refused_also_where_the_rows_wanted_are_intact(dr10, tmp_path, missing):
    path = tmp_path / "cut.fits"
    path.write_bytes(dr10.read_bytes()[:-missing])
    with pytest.raises(CorruptDataError, match=r"cut.fits"):
        whole_sweep(path, ["RELEASE"])


def test_photo_z_is_joined_row_by_row_and_missing_values_are_null(survey):
    [(sweep, photoz), *_] = survey.sweep_pairs()
    table = whole_sweep(survey.verified(sweep), ["OBJID"], survey.verified(photoz))
    stored = fitsio.read(survey.verified(photoz))
    assert table.column_names == ["OBJID", "Z_PHOT_MEDIAN", "Z_PHOT_STD"]
    expected = [None if z < -1 else z for z in stored["Z_PHOT_MEDIAN"].tolist()]
    assert table["Z_PHOT_MEDIAN"].to_pylist() == pytest.approx(expected)


@pytest.mark.parametrize("change", ["fewer rows", "other order"])
def test_photo_z_of_other_objects_is_refused(survey, tmp_path, change):
    [(sweep, photoz), *_] = survey.sweep_pairs()
    rows = fitsio.read(survey.verified(photoz))
    fitsio.write(tmp_path / "other-pz.fits", rows[:-1] if change == "fewer rows" else rows[::-1])
    with pytest.raises(BadInputError, match=r"rows where|not row by row"):
        whole_sweep(survey.verified(sweep), ["OBJID"], tmp_path / "other-pz.fits")


def test_releases_are_recognised_by_their_codes():
    assert data_release([9010, 9012]) == "dr9"
    assert data_release([10000, 10001]) == "dr10"
    with pytest.raises(BadInputError, match="DR8 or before"):
        data_release([8000])
    with pytest.raises(BadInputError, match="not of one data release"):
        data_release([9010, 10000])


def test_depths_and_magnitudes_are_those_of_the_documentation(dr10):
    # 5-sigma magnitude: 22.5 - 2.5 log10(5 / sqrt(depth)); a flux of 1 nanomaggy has magnitude 22.5.
    depth = whole_sweep(dr10, ["PSFDEPTH_R"])["PSFDEPTH_R"].to_numpy()
    assert depth_magnitude(depth)[1] == pytest.approx(22.5 - 2.5 * np.log10(5 / np.sqrt(1607.2163)), abs=1e-6)
    assert depth_inverse_variance(depth_magnitude(depth)) == pytest.approx(depth)
    assert magnitude(nanomaggies(19.3)) == pytest.approx(19.3)
    assert np.isnan(magnitude([0.0, -1.0])).all()
    assert np.isnan(depth_magnitude(0.0))
