"""The parent sample: every row accounted for, the same whatever the machine, nothing on both sides of a split."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny_survey
from dark_halo_scope.catalogue import lenses, parent
from dark_halo_scope.catalogue.config import ParentSettings
from dark_halo_scope.catalogue.crossmatch import separation
from dark_halo_scope.catalogue.parent import PARENT_SCHEMA, prepare_bricks, select_file, select_rows
from dark_halo_scope.catalogue.selection import SWEEP_COLUMNS
from dark_halo_scope.catalogue.splits import assert_disjoint, healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest, object_list, verified_paths
from dark_halo_scope.spark.session import spark_session
from dark_halo_scope.survey.bricks import read_blacklist, read_bricks
from tiny_survey import TinySurvey, whole_sweep

ARCSEC = 1 / 3600
MASTER = "local[2]"


@pytest.fixture(scope="module")
def spark():
    with spark_session(MASTER, "tests") as session:
        yield session


def two_sweeps(rows):
    """The rows in the files that DR10 would have them in: 5 degrees of RA each."""
    tile = (rows["RA"] // 5).astype(int)
    return {f"sweep-{5 * t:03d}p000-{5 * t + 5:03d}p005": rows[tile == t] for t in np.unique(tile)}


def select(survey: TinySurvey, settings: dict | None = None) -> Path:
    output = survey.directory / "parent.json"
    text = json.dumps({"max_quarantined": 0.2} | (settings or {}))
    if not (survey.directory / "lenses.json").exists():
        lenses.main(["--survey", str(survey.description), "--output", str(survey.directory / "lenses.json")])
    arguments = ["--survey", str(survey.description), "--lenses", str(survey.directory / "lenses.json")]
    parent.main([*arguments, "--output", str(output), "--settings", text, "--spark-master", MASTER])
    return output


def table_of(path: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in verified_paths(load_manifest(path, "parent")))


def quarantined(path: Path) -> list[dict]:
    manifest = load_manifest(path)
    names = [e.name for e in object_list(manifest) if e.name.startswith("quarantine/")]
    return [row for name in sorted(names) for row in pq.read_table(Path(manifest.uri) / name).to_pylist()]


@pytest.fixture(scope="module")
def small(spark, tmp_path_factory) -> tuple[Path, np.ndarray, dict[str, int]]:
    """One run over a survey with something of everything: its manifest, all sweep rows, rows by what is wrong."""
    rows = tiny_survey.field_rows(12)
    planted = {
        "nan_flux": 3,
        "ra_361": 20,
        "duplicate": 33,
        "wrong_brick": 40,
        "star": 50,
        "near_lens": 60,
        "near_cluster_lens": 65,
        "faint": 70,
    }
    rows["FLUX_Z"][planted["nan_flux"]] = np.nan
    rows["RA"][planted["ra_361"]] = 361.0
    rows["OBJID"][planted["duplicate"]] = rows["OBJID"][planted["duplicate"] - 1]
    for name in ("BRICKNAME", "BRICKID"):
        rows[name][planted["wrong_brick"]] = rows[name][0]
    rows["TYPE"][planted["star"]] = "PSF"
    rows["FLUX_Z"][planted["faint"]] = tiny_survey.flux(21.0)
    ra, dec = rows["RA"][planted["near_lens"]], rows["DEC"][planted["near_lens"]] + 10.5 * ARCSEC
    catalogue = f"a lens,{ra:.7f},{dec:.7f},0.5,galaxy,probable,x\n"
    # One that a catalogue of clusters has too, and which is therefore no entry of lenses.json.
    ra, dec = rows["RA"][planted["near_cluster_lens"]], rows["DEC"][planted["near_cluster_lens"]] + 10.5 * ARCSEC
    catalogue += f"another,{ra:.7f},{dec:.7f},0.5,galaxy,probable,Menanteau et al. (2010) | Stein et al. (2021)\n"
    sweeps = two_sweeps(np.delete(rows, planted["ra_361"]))
    first = next(iter(sweeps))
    sweeps[first] = np.append(sweeps[first], rows[planted["ra_361"]])
    survey = tiny_survey.write_survey(tmp_path_factory.mktemp("small"), sweeps, catalogue)
    return select(survey), rows, planted


def test_every_row_is_kept_quarantined_or_cut(small):
    path, rows, _ = small
    manifest = load_manifest(path, "parent")
    assert manifest.rows_in == manifest.rows_out + manifest.rows_quarantined
    assert manifest.facts["rows_read"] == len(rows)
    assert manifest.facts["rows_read"] == manifest.rows_in + sum(manifest.facts["not_parents"].values())
    assert manifest.rows_out == len(rows) - 8
    assert manifest.facts["not_parents"] == {"excluded_brick": 0, "brick_quality": 0, "not_selected": 2, "near_lens": 2}


def test_bad_rows_are_quarantined_with_the_reason(small):
    path, _, _ = small
    reasons = sorted(row["quarantine_reason"].split(" (")[0] for row in quarantined(path))
    assert reasons == [
        "FLUX_Z is not finite",
        "RA is outside [0, 360)",
        "duplicate of an identifier",
        "position lies outside its brick",
    ]


def test_a_row_says_what_its_sweep_says(small):
    path, rows, _ = small
    table = table_of(path)
    assert table.schema.equals(PARENT_SCHEMA)
    assert set(load_manifest(path).columns) == set(table.column_names)
    by_place = {(row["RA"], row["DEC"]): row for row in rows}
    for row in table.to_pylist():
        source = by_place[row["ra"], row["dec"]]
        assert row["brickname"] == source["BRICKNAME"].decode()
        assert row["objid"] == source["OBJID"]
        assert row["rmag"] == pytest.approx(22.5 - 2.5 * np.log10(source["FLUX_R"]), abs=1e-5)
        assert row["rmag_mw"] == pytest.approx(row["rmag"] + 2.5 * np.log10(0.95), abs=1e-5)
        assert row["rz"] == pytest.approx(row["rmag"] - row["zmag"], abs=1e-5)
        depth = 22.5 - 2.5 * np.log10(5 / np.sqrt(source["PSFDEPTH_R"]))
        assert row["psfdepth_r"] == pytest.approx(depth, abs=1e-5)
        no_redshift = row["objid"] % 7 == 3
        assert row["z_phot"] == (None if no_redshift else pytest.approx(0.5 + 0.001 * row["objid"]))
        assert row["is_v3_color_relaxed"]
        assert not row["is_v1_pure_massive"]


def test_every_row_has_its_cell_and_split(small):
    path, _, _ = small
    table = table_of(path)
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    assert (table["healpix_128"].to_numpy() == healpix_cell(ra, dec)).all()
    assert (table["split"].to_numpy(False).astype(str) == split_of_cells(healpix_cell(ra, dec))).all()
    assert_disjoint(ra, dec, table["healpix_128"], table["split"])
    counts = {split: table["split"].to_pylist().count(split) for split in ("train", "val", "test")}
    assert load_manifest(path).facts["splits"] == counts
    assert min(counts.values()) > 0, "the tiny survey must have all splits"


def test_no_parent_is_near_a_known_lens(small):
    path, rows, planted = small
    table = table_of(path)
    for name in ("near_lens", "near_cluster_lens"):
        lens = rows["RA"][planted[name]], rows["DEC"][planted[name]] + 10.5 * ARCSEC
        assert separation(table["ra"].to_numpy(), table["dec"].to_numpy(), *lens).min() > 11.0


def test_too_many_bad_rows_fail_and_leave_nothing(spark, tmp_path):
    rows = tiny_survey.field_rows(10)
    rows["FLUX_R"][5] = np.nan
    survey = tiny_survey.write_survey(tmp_path, two_sweeps(rows))
    with pytest.raises(BadInputError, match="more than the limit"):
        select(survey, {"max_quarantined": 0.001})
    assert not (tmp_path / "parent.json").exists()


def test_an_object_on_both_sides_of_a_split_is_quarantined_through_ra_0(spark, tmp_path):
    """Two rows 0.5 arcsec apart in two sweeps, bricks and splits: neither may be a parent."""
    ra, dec = tiny_survey.pair_across_ra_0()
    rows = np.append(tiny_survey.field_rows(4), tiny_survey.lrg_rows(ra, dec, first_objid=5000))
    path = select(tiny_survey.write_survey(tmp_path, two_sweeps(rows)))
    found = [row["objid"] for row in quarantined(path) if "another split" in row["quarantine_reason"]]
    assert sorted(found) == [5000, 5001]
    assert not {5000, 5001} & set(table_of(path)["objid"].to_pylist())


def test_an_empty_sweep_and_a_mode_that_selects_nothing_are_no_errors(spark, tmp_path):
    rows = tiny_survey.field_rows(2)
    survey = tiny_survey.write_survey(tmp_path, {"sweep-000p000-005p005": rows, "sweep-005p000-010p005": rows[:0]})
    path = select(survey, {"lrg_mode": "v1_pure_massive"})
    manifest = load_manifest(path)
    assert (manifest.rows_in, manifest.rows_out, manifest.objects) == (0, 0, 0)


def test_lower_case_names_and_desis_cuts(spark, tmp_path):
    survey = tiny_survey.write_survey(tmp_path, two_sweeps(tiny_survey.field_rows(2)), lower_case=True)
    path = select(survey, {"lrg_mode": "desi_lrg"})
    assert load_manifest(path).rows_out == 2 * len(tiny_survey.CENTRES)


def test_a_sweep_of_dr8_stops_the_run_with_the_reason(spark, tmp_path, real_data):
    survey = tiny_survey.write_survey(tmp_path, {})
    shutil.copy(real_data / "legacysurvey" / "dr8_desitarget" / "sweep-310m005-320p000.fits", tmp_path / "sweep")
    with pytest.raises(BadInputError, match="no SERSIC column"):
        select(survey)


@pytest.mark.parametrize("name", ["dr10/cat-ls-dr10.fits", "dr9_fastspecfit/tractor-1054p567.fits"])
def test_real_dr9_and_dr10_catalogues_are_read(real_data, name):
    sweep = whole_sweep(real_data / "legacysurvey" / name, SWEEP_COLUMNS)
    names = sorted(set(sweep["BRICKNAME"].to_pylist()))
    count = len(names)
    table = {"BRICKNAME": names, "EBV": [0.01] * count, "PSFSIZE_R": [1.2] * count, "PSFDEPTH_R": [24.5] * count}
    box = {"BRICKNAME": names, "RA1": [0.0] * count, "RA2": [360.0] * count}
    box |= {"DEC1": [-90.0] * count, "DEC2": [90.0] * count}
    settings = ParentSettings(lrg_mode="v5_very_relaxed")
    bricks = prepare_bricks(pa.table(table), pa.table(box), settings, (), name)
    selection = select_rows(sweep, bricks, np.empty(0), np.empty(0), settings)
    assert selection.counts["read"] == sweep.num_rows
    assert selection.counts["bad"] == 0
    assert selection.rows.num_rows + selection.counts["not_selected"] == sweep.num_rows
    assert selection.rows.schema.equals(PARENT_SCHEMA)
    assert selection.rows["z_phot"].null_count == selection.rows.num_rows


def test_rows_and_their_numbers_are_those_of_the_whole_file_however_few_are_read_at_once(tmp_path):
    rows = tiny_survey.field_rows(6)
    rows["FLUX_Z"][[3, 30, 31]] = np.nan
    rows["TYPE"][[5, 40]] = "PSF"
    survey = tiny_survey.write_survey(tmp_path, {"sweep-000p000-360p090": rows})
    sweep, photoz = tmp_path / "sweep/sweep-000p000-360p090.fits", tmp_path / "photoz/sweep-000p000-360p090-pz.fits"
    tables = [read_bricks(survey.directory / f"survey-bricks{name}.fits.gz") for name in ("-dr10-south", "")]
    bricks = prepare_bricks(*tables, ParentSettings(), (), "a table")
    lens = rows["RA"][[20]], rows["DEC"][[20]]
    [whole] = select_file(sweep, photoz, ["dr10"], bricks, *lens, ParentSettings())
    parts = list(select_file(sweep, photoz, ["dr10"], bricks, *lens, ParentSettings(), part_rows=7))
    assert len(parts) == 7
    assert whole.quarantined_numbers.tolist() == [3, 30, 31]
    assert whole.row_numbers.tolist() == sorted(set(range(48)) - {3, 5, 20, 30, 31, 40})
    for name in ("rows", "quarantined"):
        assert pa.concat_tables(getattr(part, name) for part in parts).equals(getattr(whole, name))
    for name in ("row_numbers", "quarantined_numbers"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()
    assert {name: sum(part.counts[name] for part in parts) for name in whole.counts} == whole.counts


def bricks_for(settings: ParentSettings, blacklist=(), **changes):
    values = {"BRICKNAME": ["0001p000", "0460m800", "3252p267"], "EBV": [0.1, 0.1, 0.1]}
    values |= {"PSFSIZE_R": [1.3, 1.3, 1.3], "PSFDEPTH_R": [24.0, 24.0, 24.0]} | changes
    box = {"BRICKNAME": ["3252p267", "0001p000", "0460m800"], "RA1": [3.0, 1.0, 2.0], "RA2": [4.0, 2.0, 3.0]}
    box |= {"DEC1": [0.0] * 3, "DEC2": [1.0] * 3}
    return prepare_bricks(pa.table(values), pa.table(box), settings, blacklist, "a table")


def test_brick_cuts_are_those_of_the_earlier_pipeline():
    bricks = bricks_for(ParentSettings(), EBV=[0.12, 0.121, 0.1], PSFSIZE_R=[1.6, 1.3, 1.61])
    assert bricks.usable.tolist() == [True, False, False]
    bricks = bricks_for(ParentSettings(), PSFDEPTH_R=[23.6, 23.59, float("nan")], PSFSIZE_R=[1.0, 1.0, 0.0])
    assert bricks.usable.tolist() == [True, False, False]


def test_boxes_follow_their_bricks():
    assert bricks_for(ParentSettings()).box[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_excluded_and_blacklisted_bricks_are_left_out(tmp_path):
    assert bricks_for(ParentSettings()).excluded.tolist() == [False, True, True]
    path = tmp_path / "brick_blacklist.json"
    path.write_text(json.dumps({"bricks": ["0001p000"]}))
    assert bricks_for(ParentSettings(), read_blacklist(str(path))).excluded.tolist() == [True, True, True]
    path.write_text('{"what": 1}')
    with pytest.raises(BadInputError, match="brick names"):
        read_blacklist(str(path))


def test_a_bricks_table_without_conditions_is_refused(tmp_path):
    path = tmp_path / "bricks.fits"
    fitsio.write(path, [np.array([b"0001p000"]), np.array([1.0]), np.array([0.0])], names=["BRICKNAME", "RA", "DEC"])
    with pytest.raises(BadInputError, match="EBV, PSFSIZE_R, PSFDEPTH_R, RA1"):
        prepare_bricks(read_bricks(path), read_bricks(path), ParentSettings(), (), str(path))


def parent_files(path: Path) -> list:
    """What was written of good rows; quarantined rows name their file."""
    return [entry for entry in object_list(load_manifest(path)) if entry.name.startswith("parent-")]


def test_the_same_bytes_however_rows_are_cut_into_files_and_partitions(small, spark, tmp_path):
    path, rows, planted = small
    catalogue = (path.parent / "lenses.csv").read_text().partition("\n")[2]
    backwards = {f"sweep-{i:03d}p000-{i:03d}p001": rows[i::5] for i in (4, 2, 0, 3, 1)}
    survey = tiny_survey.write_survey(tmp_path / "one", {"sweep-000p000-360p090": rows}, catalogue)
    other = tiny_survey.write_survey(tmp_path / "five", backwards, catalogue)
    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    try:
        spark.conf.set("spark.sql.shuffle.partitions", "1")
        one = select(survey)
        spark.conf.set("spark.sql.shuffle.partitions", "4")
        five = select(other)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert len(parent_files(path)) > 3
    assert planted["duplicate"] % 5 != (planted["duplicate"] - 1) % 5, "the duplicate is in another file than its twin"
    assert parent_files(one) == parent_files(path)
    assert parent_files(five) == parent_files(path)


def test_a_larger_survey_has_more_files_and_not_larger_ones(small, spark, tmp_path):
    path, rows, _ = small
    catalogue = (path.parent / "lenses.csv").read_text().partition("\n")[2]
    survey = tiny_survey.write_survey(tmp_path / "same", {"sweep-000p000-360p090": rows}, catalogue)
    fine = select(survey, {"files": 1, "rows_per_file": 5})
    before, after = table_of(path), table_of(fine)
    # `files` asks for one at least; a brick is never cut in two.
    assert len(parent_files(fine)) > 4
    order = [("brickname", "ascending"), ("objid", "ascending"), ("release", "ascending")]
    assert after.sort_by(order).equals(before.sort_by(order))


_RUN = "import sys; from dark_halo_scope.catalogue import parent; parent.main(sys.argv[1:])"


@pytest.mark.slow
def test_the_same_manifest_from_one_core_and_four_and_another_hash_seed(small, tmp_path, project_root):
    """Processes of their own, since the hash seed is set at start."""
    path, _, _ = small
    hashes = {load_manifest(path).sha256}
    for cores, seed in ((1, "1"), (4, "77")):
        output = tmp_path / f"{cores}" / "parent.json"
        arguments = ["--survey", str(path.parent / "survey.json"), "--lenses", str(path.parent / "lenses.json")]
        arguments += ["--output", str(output), "--settings", '{"max_quarantined": 0.2}']
        subprocess.run(
            [sys.executable, "-c", _RUN, *arguments, "--spark-master", f"local[{cores}]"],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(project_root / "lib")},
        )
        hashes.add(load_manifest(output).sha256)
    assert len(hashes) == 1
