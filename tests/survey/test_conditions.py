"""Conditions of a position are those of the brick that owns it, or unknown."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.conditions import CONDITIONS, BrickConditions, conditions_of_table, read_conditions
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from tiny_survey import CENTRES, field_rows, write_survey


def test_every_condition_is_looked_up_by_brick(survey: SurveyDescription) -> None:
    from dark_halo_scope.survey.bricks import read_bricks

    bricks = read_bricks(survey.verified(survey.files.brick_summary)).to_pylist()
    found = read_conditions(survey).at([row["RA"] for row in bricks], [row["DEC"] for row in bricks])
    assert found.column_names == ["brickname", *CONDITIONS]
    for name in CONDITIONS:
        assert found[name].to_pylist() == pytest.approx([row[name.upper()] for row in bricks])
    assert found["brickname"].to_pylist() == [row["BRICKNAME"] for row in bricks]


def test_a_brick_that_the_release_does_not_have_has_unknown_conditions(survey: SurveyDescription) -> None:
    [row] = read_conditions(survey).at([200.0], [80.0]).to_pylist()
    assert row.pop("brickname") == "2005p800"
    assert set(row.values()) == {None}


def test_a_release_that_says_less_leaves_the_rest_unknown(tmp_path: Path) -> None:
    tiny = load_survey(write_survey(tmp_path, {"sweep-000p000-005p005": field_rows(2)}).description)
    conditions = read_conditions(tiny)
    [row] = conditions.at(*CENTRES[2]).to_pylist()
    assert row["psfsize_r"] == pytest.approx(1.3)
    assert row["psfdepth_r"] == pytest.approx(24.2)
    assert row["psfsize_g"] is None
    assert conditions.exposed.all()


def test_a_size_or_depth_of_zero_stands_for_no_exposure_and_is_unknown(tmp_path: Path) -> None:
    import fitsio

    write_survey(tmp_path, {"sweep-000p000-005p005": field_rows(2)})
    path = tmp_path / "survey-bricks-dr10-south.fits.gz"
    rows = fitsio.read(path)
    rows["PSFSIZE_R"][2] = 0
    columns = {name: rows[name] for name in rows.dtype.names} | {"NEXP_Z": np.arange(len(rows))}
    fitsio.write(path, list(columns.values()), names=list(columns), clobber=True)
    conditions: BrickConditions = read_conditions(load_survey(tmp_path / "survey.json"))
    assert conditions.at(*CENTRES[2])["psfsize_r"].to_pylist() == [None]
    _, row = conditions.rows_at(*CENTRES[0])
    assert not conditions.exposed[row[0]]
    assert conditions.exposed.sum() == len(rows) - 1


def write_table(path: Path, **columns: object) -> Path:
    fits.BinTableHDU(Table(columns)).writeto(path)
    return path


def test_column_names_of_any_case_are_read_and_numbers_that_cannot_be_are_unknown(tmp_path: Path) -> None:
    names, values = ["0003p000", "0001p000", "0006p000"], {"psfsize_r": [1.2, -1.0, np.nan], "ebv": [0.0, 0.1, -1.0]}
    conditions = conditions_of_table(write_table(tmp_path / "bricks.fits", brickname=names, **values))
    found = conditions.at([0.375, 0.125, 0.625], [0.0, 0.0, 0.0])
    assert found["psfsize_r"].to_pylist() == [1.2, None, None]
    assert found["ebv"].to_pylist() == [0.0, 0.1, None]


def test_a_table_that_is_cut_short_or_lists_no_bricks_or_one_twice_is_refused(tmp_path: Path) -> None:
    whole = write_table(tmp_path / "bricks.fits", brickname=["0001p000"], psfsize_r=[1.2]).read_bytes()
    (tmp_path / "short.fits.gz").write_bytes(whole[:200])
    with pytest.raises(CorruptDataError, match=r"short\.fits\.gz cannot be read"):
        conditions_of_table(tmp_path / "short.fits.gz")
    with pytest.raises(BadInputError, match="lacks the column BRICKNAME"):
        conditions_of_table(write_table(tmp_path / "other.fits", psfsize_r=[1.2]))
    with pytest.raises(BadInputError, match="more than once"):
        conditions_of_table(write_table(tmp_path / "twice.fits", brickname=["0001p000"] * 2, psfsize_r=[1.2, 1.3]))
