"""Conditions of a position are those of the brick that owns it, or unknown."""

from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.survey.conditions import CONDITIONS, BrickConditions, read_conditions
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
