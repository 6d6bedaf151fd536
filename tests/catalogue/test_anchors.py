"""The list of anchors: every known lens that the survey sees, once, with its tiers; every other row has a reason."""

import csv
import json
from collections import Counter
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.catalogue.anchor_config import AnchorListSettings, AnchorSettings
from dark_halo_scope.catalogue.anchors import (
    bad_reason,
    is_stress,
    list_anchors,
    main,
    match_tractor,
    merge,
    read_list,
    read_radii,
    survey_path,
    sweeps_of,
)
from dark_halo_scope.catalogue.lenses import main as match_lenses
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.manifest import load_manifest, verified_paths
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from tiny_survey import CENTRES, field_rows, write_survey

SLACS, STORFER, HUANG = "Bolton et al. (2008) - arXiv:0805.1931", "Storfer - arXiv:2206.02764", "H - arXiv:1906.00970"
ARCSEC = 1 / 3600

# Name, brick of CENTRES, arcsec north of its centre, grading, reference.
LENSES = (
    ("J-slacs", 2, 0.0, "confident", SLACS),
    ("DESI-storfer", 3, 0.0, "probable", STORFER),
    ("DESI-huang", 4, 0.0, "confident", HUANG),
    ("J-both", 5, 0.0, "probable", f"{SLACS} | {HUANG}"),
    ("J-cluster", 6, 0.0, "probable", HUANG),
)
MINE = AnchorListSettings(name="mine", path="mine.csv")
COMPACT = AnchorListSettings(name="compact", path="compact.csv", tier_scheme="hst", stress=True)


def lenscat(*extra: str) -> str:
    rows = [
        f"{name},{CENTRES[brick][0]},{CENTRES[brick][1] + north * ARCSEC},0.5,"
        f"{'cluster' if name == 'J-cluster' else 'galaxy'},{grading},{ref}"
        for name, brick, north, grading, ref in LENSES
    ]
    return "\n".join([*rows, f"J-north,200.0,80.0,-,galaxy,confident,{HUANG}", *extra]) + "\n"


def at(brick: int, north: float = 0.0) -> str:
    """Coordinates as CSV text, arcsec north of a brick's centre."""
    return f"{CENTRES[brick][0]},{CENTRES[brick][1] + north * ARCSEC}"


@pytest.fixture
def survey(tmp_path: Path) -> SurveyDescription:
    return load_survey(write_survey(tmp_path, {"sweep-000p000-005p005": field_rows(3)}, lenscat()).description)


@pytest.fixture
def lenses_json(survey: SurveyDescription, tmp_path: Path) -> Path:
    match_lenses(["--survey", str(tmp_path / "survey.json"), "--output", str(tmp_path / "lenses.json")])
    return tmp_path / "lenses.json"


@pytest.fixture
def lenses(lenses_json: Path) -> pa.Table:
    return pq.read_table(verified_paths(load_manifest(lenses_json))[0])


def by_name(table: pa.Table) -> dict[str, dict]:
    return {row["name"]: row for row in table.to_pylist()}


def row_of(**changes: object) -> dict:
    [row] = read_list("name,ra,dec\nA,10,1\n", MINE)
    return row | changes


def test_lenses_in_the_footprint_are_anchors_and_others_have_a_reason(survey, lenses) -> None:
    anchors, others = list_anchors(lenses, {}, survey, AnchorSettings())
    assert sorted(anchors["name"].to_pylist()) == ["DESI-huang", "DESI-storfer", "J-both", "J-slacs"]
    reasons = dict(zip(others["name"].to_pylist(), others["quarantine_reason"].to_pylist(), strict=True))
    assert reasons == {"J-cluster": "a lens of type cluster", "J-north": "outside the survey's footprint"}
    assert anchors.num_rows + others.num_rows == lenses.num_rows


def test_both_tier_schemes_discovery_cell_split_and_conditions_are_there(survey, lenses) -> None:
    found = by_name(list_anchors(lenses, {}, survey, AnchorSettings())[0])
    assert {name: (row["tier_grade"], row["tier_gen5_prime"]) for name, row in found.items()} == {
        "J-slacs": ("A", "B"),
        "DESI-storfer": ("B", None),
        "DESI-huang": ("A", "A"),
        "J-both": ("B", "A"),
    }
    assert found["DESI-huang"]["discovery"] == "machine_learning_this_survey"
    for row in found.values():
        cell = healpix_cell(row["ra"], row["dec"])
        assert (row["healpix_128"], row["split"]) == (cell[0], split_of_cells(cell)[0])
        assert row["psfsize_r"] == pytest.approx(1.3)
        assert row["psfdepth_r"] == pytest.approx(24.2)
        assert row["psfsize_g"] is None


def test_only_lenses_known_from_nowhere_but_stress_lists_are_stress(survey, lenses) -> None:
    lists = {"compact": f"name,ra,dec,tier\nnew,{at(7)},S\nagain,{at(4, 0.5)},S\n"}
    settings = AnchorSettings(lists=(COMPACT,))
    found = by_name(list_anchors(lenses, lists, survey, settings)[0])
    assert {name for name, row in found.items() if row["stress"]} == {"J-slacs", "new"}
    assert found["DESI-huang"]["tier_hst"] == found["new"]["tier_hst"] == "S"
    assert found["J-both"]["tier_hst"] is None


def test_stress_follows_from_references_and_lists() -> None:
    marks = AnchorSettings().stress_refs
    catalogue = {"lists": ["catalogue"], "is_stress_list": None}
    assert is_stress(row_of(refs=[SLACS], **catalogue), marks)
    assert not is_stress(row_of(refs=[SLACS, HUANG], **catalogue), marks)
    assert is_stress(row_of(is_stress_list=True), marks)
    assert not is_stress(row_of(), marks)
    both = ["catalogue", "mine"]
    assert is_stress(row_of(refs=[SLACS], lists=both, is_stress_list=True), marks)
    assert not is_stress(row_of(refs=[SLACS], lists=both, is_stress_list=False), marks)
    assert not is_stress(row_of(refs=[], lists=both, is_stress_list=True), marks)


def test_a_lens_of_slacs_that_an_ordinary_list_has_too_is_no_stress(survey, lenses) -> None:
    slacs = by_name(list_anchors(lenses, {}, survey, AnchorSettings())[0])["J-slacs"]
    row = f"name,ra,dec\nagain,{slacs['ra']},{slacs['dec']}\n"
    for stress in (False, True):
        chosen = AnchorListSettings(name="mine", path="mine.csv", tier_scheme="own", stress=stress)
        found = by_name(list_anchors(lenses, {"mine": row}, survey, AnchorSettings(lists=(chosen,)))[0])
        assert found["J-slacs"]["stress"] == stress


def test_a_users_list_joins_the_catalogues_within_two_arcsec(survey, lenses) -> None:
    mine = f"name,ra,dec,theta_e_arcsec,tier,discovery\nhere,{at(3, 1.5)},1.8,gold,eyes\nthere,{at(3, 4.0)},,,\n"
    anchors, others = list_anchors(lenses, {"mine": mine}, survey, AnchorSettings(lists=(MINE,)))
    found = by_name(anchors)
    both = found["DESI-storfer"]
    assert (both["names"], both["lists"]) == (["DESI-storfer", "here"], ["catalogue", "mine"])
    assert (both["theta_e_arcsec"], both["tier_mine"]) == (1.8, "gold")
    # A radius beyond 1.5 arcsec makes a lens of Storfer et al. one of Tier-A.
    assert both["tier_gen5_prime"] == "A"
    assert both["discovery"] == "machine_learning_this_survey"
    assert (found["there"]["lists"], found["there"]["tier_grade"]) == (["mine"], None)
    assert "merged into DESI-storfer" in others["quarantine_reason"].to_pylist()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",10,1", "no name"),
        ("A,,1", "position is not finite"),
        ("A,ten,1", "position is not finite"),
        ("A,10,inf", "position is not finite"),
        ("A,361,1", "position is out of range"),
        ("A,10,-90.5", "position is out of range"),
        ("A,10,1", None),
    ],
)
def test_a_bad_row_of_a_list_has_a_reason(line: str, reason: str | None) -> None:
    [row] = read_list(f"name,ra,dec\n{line}\n", MINE)
    assert bad_reason(row, ("galaxy",)) == reason


def test_a_list_without_a_column_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"mine\.csv lacks the columns dec"):
        read_list("name,ra\nA,1\n", MINE)


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_column() -> None:
    assert read_list("\ufeffname,ra,dec\nA,10,1\n", MINE)[0]["ra"] == 10.0


def test_rows_merge_across_ra_0_and_the_first_keeps_its_place() -> None:
    kept, merged = merge([row_of(name="west", ra=359.9999), row_of(name="east", ra=0.0001, zlens=0.4)], 2.0)
    assert [(row["name"], row["zlens"]) for row in kept] == [("west", 0.4)]
    assert [row["name"] for row in merged] == ["east"]


def test_radii_are_read_from_csv_and_fits_and_no_radius_is_left_out(tmp_path: Path) -> None:
    with (tmp_path / "radii.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("ra", "dec", "theta_e_arcsec"), (10, 1, 1.4), (11, 2, 0)])
    columns = [np.array([10.0, 11.0, 12.0]), np.array([1.0, 2.0, 3.0]), np.array([1.4, 0.0, np.nan], "f4")]
    fitsio.write(tmp_path / "radii.fits", columns, names=["RA", "DEC", "THETA_E"])
    for name in ("radii.csv", "radii.fits"):
        ra, dec, theta = read_radii(tmp_path / name)
        assert (ra.tolist(), dec.tolist()) == ([10.0], [1.0])
        assert theta == pytest.approx([1.4])


@pytest.mark.parametrize("text", ["ra,dec\n1,2\n", "ra,dec,theta_e_arcsec\n1,2,wide\n"])
def test_a_table_of_radii_without_numbers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "radii.csv").write_text(text)
    with pytest.raises(BadInputError, match="theta_e_arcsec"):
        read_radii(tmp_path / "radii.csv")
    fitsio.write(tmp_path / "radii.fits", [np.zeros(1)], names=["RA"])
    with pytest.raises(BadInputError, match="lacks the columns DEC, THETA_E"):
        read_radii(tmp_path / "radii.fits")


def test_radii_of_a_catalogue_stand_and_others_come_from_tables(survey, lenses, tmp_path: Path) -> None:
    table = tmp_path / "radii.csv"
    table.write_text(f"ra,dec,theta_e_arcsec\n{at(3, 1.0)},2.2\n{at(4, 5.0)},0.9\n")
    settings = AnchorSettings(theta_e_tables=(str(table),))
    found = by_name(list_anchors(lenses, {}, survey, settings)[0])
    assert {name: row["theta_e_arcsec"] for name, row in found.items()} == {
        "DESI-storfer": 2.2,
        "DESI-huang": None,
        "J-both": None,
        "J-slacs": None,
    }


def test_a_file_of_the_embedded_survey_is_refused_where_there_is_none(survey) -> None:
    with pytest.raises(BadInputError, match="tiny is none"):
        survey_path("{survey}/truth/truth.fits", survey)


def test_the_nearest_object_of_the_sweeps_gives_position_magnitudes_and_identity(survey) -> None:
    sweep = fitsio.read(survey.sweep_pairs()[0][0])
    # The first brick that lies in the sweep's box.
    sweep = sweep[np.argsort(sweep["DEC"] < 0, kind="stable")]
    sweep["TYPE"][1] = "DUP"
    fitsio.write(survey.sweep_pairs()[0][0], sweep, clobber=True)
    host = sweep[0]
    rows = [
        row_of(ra=float(host["RA"]), dec=float(host["DEC"]) + ARCSEC),
        row_of(ra=float(sweep[1]["RA"]), dec=float(sweep[1]["DEC"])),
        row_of(ra=float(host["RA"]), dec=float(host["DEC"]) + 3 * ARCSEC),
    ]
    match_tractor(rows, survey, 2.0)
    assert (rows[0]["ra"], rows[0]["dec"]) == (host["RA"], host["DEC"])
    assert rows[0]["separation_arcsec"] == pytest.approx(1.0, abs=1e-3)
    assert rows[0]["galaxy_id"] == f"{host['BRICKNAME']}_{host['OBJID']}"
    assert rows[0]["rmag"] == pytest.approx(22.5 - 2.5 * np.log10(host["FLUX_R"]), abs=1e-5)
    assert rows[0]["nobs_z"] == 4
    # What stands for a Gaia star, and what lies beyond the radius, are no match.
    assert [("objid" in row) for row in rows] == [True, False, False]


def test_only_sweeps_that_hold_a_lens_are_read() -> None:
    names = ("355m005-360p000", "000m005-005p000", "000p000-005p005", "010p000-015p005")
    pairs = [(f"s3://x/sweep-{name}.fits", None) for name in names]
    pairs.append(("s3://x/everything.fits", None))

    def chosen(ra: float, dec: float) -> list[str]:
        found = sweeps_of(pairs, np.array([ra]), np.array([dec]), 2 * ARCSEC)
        return [uri.removeprefix("s3://x/").removesuffix(".fits").removeprefix("sweep-") for uri in found]

    assert chosen(2.0, 1.0) == ["000p000-005p005", "everything"]
    assert chosen(359.0, -1.0) == ["355m005-360p000", "everything"]
    # On a corner of three files, across RA 0 too.
    assert chosen(0.0001, -0.0001) == ["355m005-360p000", "000m005-005p000", "000p000-005p005", "everything"]
    assert chosen(200.0, 50.0) == ["everything"]


def test_the_command_line_accounts_for_every_row_and_repeats_its_bytes(
    survey, lenses_json: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text(f"name,ra,dec\nhere,{at(3, 1.0)}\nnowhere,,\n")
    settings = json.dumps({"lists": [{"name": "mine", "path": str(tmp_path / "mine.csv")}], "tractor": True})
    command = ["--survey", str(tmp_path / "survey.json"), "--lenses", str(lenses_json), "--settings", settings]
    for name in ("first", "second"):
        main([*command, "--output", str(tmp_path / name / "list.json")])
    first, second = (load_manifest(tmp_path / name / "list.json", "anchors") for name in ("first", "second"))
    assert first.sha256 == second.sha256
    assert (first.rows_in, first.rows_out, first.rows_quarantined) == (8, 4, 4)
    assert sum(first.facts["reasons"].values()) == 4
    assert first.facts["reasons"]["merged with another row"] == 1
    assert first.facts["tier_grade"] == dict(Counter({"A": 2, "B": 2}))


@pytest.mark.parametrize(
    "lists",
    [
        [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}],
        [{"name": "a", "path": "x", "tier_scheme": "grade"}],
        [{"name": "gen5_prime", "path": "x"}],
    ],
)
def test_lists_that_would_overwrite_one_another_are_refused(lists: list) -> None:
    with pytest.raises(ConfigError):
        validate(AnchorSettings, {"lists": lists}, "it")
