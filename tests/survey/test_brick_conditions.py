"""How the sky was observed at a position is its brick's, or said to be unknown."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import tiny_survey
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.brick_conditions import bricknames_at, conditions_of_table, read_brick_conditions
from dark_halo_scope.survey.description import load_survey


def write(path: Path, **columns: object) -> Path:
    fits.BinTableHDU(Table(columns)).writeto(path)
    return path


def test_conditions_are_those_of_the_brick_that_owns_the_position(tmp_path: Path) -> None:
    survey = tiny_survey.write_survey(tmp_path / "survey", {"sweep-000p000-005p005": tiny_survey.field_rows(2)})
    conditions = read_brick_conditions(load_survey(survey.description))
    ra, dec = np.array(tiny_survey.CENTRES).T
    names = bricknames_at(ra + 0.01, dec - 0.01)
    assert names.tolist() == tiny_survey.BRICKS.name.tolist()
    assert conditions.of("psfsize_r", names) == pytest.approx(np.full(len(names), 1.3))
    assert conditions.of("psfdepth_r", names) == pytest.approx(np.full(len(names), 24.2))


def test_what_a_table_does_not_say_is_unknown(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bricks.fits",
        brickname=["0001p002", "0001p000", "0001p005"],
        psfsize_r=[1.2, 0.0, np.nan],
        ebv=[0.0, 0.1, -1.0],
    )
    conditions = conditions_of_table(path)
    wanted = ["0001p002", "0001p000", "0001p005", "3599m890"]
    assert conditions.of("psfsize_r", wanted) == pytest.approx([1.2, np.nan, np.nan, np.nan], nan_ok=True)
    assert conditions.of("ebv", wanted) == pytest.approx([0.0, 0.1, np.nan, np.nan], nan_ok=True)
    assert np.isnan(conditions.of("psfdepth_z", wanted)).all()
    assert (conditions.row(wanted) >= 0).tolist() == [True, True, True, False]


def test_a_file_that_is_cut_short_or_is_no_table_of_bricks_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "bricks.fits", brickname=["0001p000"], psfsize_r=[1.2]).read_bytes()
    (tmp_path / "short.fits.gz").write_bytes(whole[:200])
    with pytest.raises(CorruptDataError, match=r"short\.fits\.gz cannot be read"):
        conditions_of_table(tmp_path / "short.fits.gz")
    with pytest.raises(BadInputError, match="lacks the column BRICKNAME"):
        conditions_of_table(write(tmp_path / "other.fits", psfsize_r=[1.2]))
