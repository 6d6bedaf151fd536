"""Positives: a lens has its nearest galaxy or a reason why not, a galaxy one lens, and splits are patches of sky."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import tiny_survey
from dark_halo_scope.catalogue import lenses as lens_lists
from dark_halo_scope.catalogue import positives
from dark_halo_scope.catalogue.config import LensSettings
from dark_halo_scope.catalogue.lenses import match_theta_e, read_lenscat, select, to_table
from dark_halo_scope.catalogue.negative_rows import POOL_SCHEMA
from dark_halo_scope.catalogue.positive_config import PositiveSettings
from dark_halo_scope.catalogue.positive_rows import (
    ACROSS,
    NO_GALAXY,
    OUTSIDE,
    OUTSIDE_CUTS,
    POSITIVE_SCHEMA,
    SHARED,
    choose_lenses,
    match,
)
from dark_halo_scope.catalogue.positives import positive_facts
from dark_halo_scope.catalogue.splits import assert_disjoint, healpix_cell, split_of_cells, split_of_key
from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.manifest import load_manifest, object_list, verified_paths
from dark_halo_scope.spark.session import spark_session
from positive_scene import ARCSEC, galaxies_of, galaxy, lens, lens_table, matched, sweep_table

MASTER = "local[2]"


def reasons(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["name"].to_pylist(), table["quarantine_reason"].to_pylist(), strict=True))


def test_a_lens_is_the_nearest_galaxy_and_never_a_star_or_a_duplicate():
    stars = [galaxy(dec=0.1 * ARCSEC, objid=7, TYPE="PSF"), galaxy(dec=0.2 * ARCSEC, objid=8, TYPE="DUP")]
    found = matched([lens()], [galaxy(dec=-3 * ARCSEC, objid=1), galaxy(dec=2 * ARCSEC, objid=2), *stars])
    [row] = found.rows.to_pylist()
    assert row["objid"] == 2
    assert row["separation_arcsec"] == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("ra", [0.0, 359.9999, 10.0])
def test_the_radius_holds_in_double_precision_across_ra_0(ra):
    """A right ascension of 32 bits is off by up to 0.06 arcsec there."""
    inside, outside = ((ra + arcsec * ARCSEC) % 360 for arcsec in (4.99, 5.01))
    assert matched([lens(ra)], [galaxy(inside)]).rows.num_rows == 1
    assert matched([lens(ra)], [galaxy(outside)]).rows.num_rows == 0


def test_positions_of_32_bits_are_refused():
    sweep = sweep_table(galaxy(359.9))
    sweep = sweep.set_column(sweep.schema.get_field_index("RA"), "RA", sweep["RA"].cast(pa.float32()))
    with pytest.raises(TypeError, match="float64"):
        galaxies_of(sweep, lens_table(lens(359.9)), PositiveSettings())


def test_of_two_lenses_with_one_galaxy_the_nearer_keeps_it_and_the_other_is_counted():
    near, far = lens(dec=1 * ARCSEC, name="near"), lens(dec=-3 * ARCSEC, name="far", grading="confident")
    found = matched([far, near], [galaxy()])
    assert found.rows["name"].to_pylist() == ["near"]
    assert reasons(found.unmatched) == {"far": SHARED}


def test_of_two_lenses_as_near_the_confident_one_keeps_the_galaxy():
    pair = [lens(dec=-2 * ARCSEC, name="probable"), lens(dec=2 * ARCSEC, name="sure", grading="confident")]
    for order in (pair, pair[::-1]):
        assert matched(order, [galaxy()]).rows["name"].to_pylist() == ["sure"]


def test_two_galaxies_as_near_are_counted_and_the_first_by_name_is_taken():
    pair = [galaxy(dec=2 * ARCSEC, objid=5), galaxy(dec=-2 * ARCSEC, objid=4)]
    for order in (pair, pair[::-1]):
        found = matched([lens()], order)
        assert (found.rows["objid"].to_pylist(), found.ties) == ([4], 1)
    assert matched([lens()], [pair[0], galaxy(dec=2.1 * ARCSEC, objid=4)]).ties == 0


def test_outside_the_footprint_is_told_from_unmatched_inside_it():
    here = str(tiny_survey.BRICKS.name[3])
    inside = lens(float(tiny_survey.BRICKS.ra[3]), float(tiny_survey.BRICKS.dec[3]), name="inside")
    found = matched([inside, lens(200.0, 5.0, name="outside")], [galaxy(100.0, 5.0)], [here])
    assert reasons(found.unmatched) == {"inside": NO_GALAXY, "outside": OUTSIDE}


def test_a_galaxy_that_two_files_hold_is_one_galaxy():
    lenses, settings = lens_table(lens()), PositiveSettings()
    twice = [galaxies_of(sweep_table(galaxy()), lenses, settings, name) for name in ("b.fits", "a.fits")]
    found = match(lenses, pa.concat_tables(twice), np.array([True]), settings)
    assert (found.rows["sweep_file"].to_pylist(), found.ties) == (["a.fits"], 0)


def test_positives_of_two_splits_that_are_one_object_are_quarantined():
    ra, dec = tiny_survey.pair_across_ra_0()
    both = list(zip(ra.tolist(), dec.tolist(), strict=True))
    found = matched(
        [lens(a, d, name=str(i)) for i, (a, d) in enumerate(both)],
        [galaxy(a, d, objid=i) for i, (a, d) in enumerate(both)],
        pool="plan",
    )
    assert found.rows.num_rows == 0
    assert set(reasons(found.unmatched).values()) == {ACROSS}


def test_a_row_has_the_pools_columns_of_its_galaxy_and_what_the_catalogue_says():
    found = matched([lens(dec=ARCSEC, grading="confident", zlens=0.7, theta_e_arcsec=1.8)], [galaxy(NOBS_Z=7)])
    assert found.rows.schema.equals(POSITIVE_SCHEMA)
    assert POSITIVE_SCHEMA.names[: len(POOL_SCHEMA)] == POOL_SCHEMA.names
    [row] = found.rows.to_pylist()
    assert (row["ra"], row["dec"], row["pos_ra"], row["pos_dec"]) == (10.0, 0.0, 10.0, ARCSEC)
    assert (row["pool"], row["confuser_category"], row["nobs_z_bin"]) == (None, None, "6-10")
    assert (row["tier"], row["sample_weight"], row["zlens"], row["theta_e_arcsec"]) == ("A", 1.0, 0.7, 1.8)
    assert row["galaxy_id"] == f"{row['brickname']}_{row['objid']}"
    assert row["psfdepth_r"] == 101.5  # an inverse variance, as in the pool


def test_tier_b_weighs_half_and_settings_keep_the_plans_range():
    assert matched([lens()], [galaxy()]).rows["sample_weight"].to_pylist() == [0.5]
    assert matched([lens()], [galaxy()], tier_weights={"A": 1, "B": 0.3}).rows["sample_weight"].to_pylist() == [0.3]
    for wrong in ({"A": 1, "B": 0.29}, {"A": 1, "B": 0.61}, {"A": 0.95, "B": 0.5}, {"A": 1}):
        with pytest.raises(ValueError, match="tier_weights"):
            PositiveSettings(tier_weights=wrong)


@pytest.mark.parametrize(
    ("changes", "pool", "inside"),
    [
        ({}, "executed", True),
        ({"TYPE": "EXP"}, "executed", False),
        ({"MASKBITS": 1 << 11}, "executed", False),
        ({"MASKBITS": 1 << 2}, "executed", True),
        ({"MASKBITS": 1 << 2}, "plan", False),
        ({"NOBS_G": 2}, "executed", False),
        ({"NOBS_G": 2}, "plan", True),
        ({"FLUX_Z": tiny_survey.flux(20.1)}, "executed", False),
    ],
)
def test_a_lens_whose_galaxy_no_negative_could_be_is_no_positive(changes, pool, inside):
    """A neighbour that would do does not stand in for it."""
    galaxies = [galaxy(dec=ARCSEC, **changes), galaxy(dec=4 * ARCSEC, objid=2)]
    found = matched([lens()], galaxies, pool=pool)
    assert found.rows["objid"].to_pylist() == ([1] if inside else [])
    assert list(reasons(found.unmatched).values()) == ([] if inside else [OUTSIDE_CUTS])
    rows = matched([lens()], galaxies, pool=pool, same_cuts_as_negatives=False).rows
    assert rows["objid"].to_pylist() == [1]


def test_bad_rows_are_no_galaxies():
    assert matched([lens()], [galaxy(FLUX_R=np.nan), galaxy(RA=361.0)]).rows.num_rows == 0


@pytest.mark.parametrize(
    ("row", "settings", "reason"),
    [
        (lens(type="cluster"), {}, "another type of deflector"),
        (lens(type="group"), {}, None),
        (lens(is_desi_named=False), {}, "no DESI in its names"),
        (lens(is_desi_named=False), {"desi_named": False}, None),
        (lens(dec=-18.0), {}, "outside the declinations of the negatives"),
        (lens(dec=-18.0), {"dec_range": None}, None),
        (lens(), {"discovery": ("spectroscopy",)}, "found by another method"),
        (lens(), {"exclude_refs": ("2206.02764",)}, "listed by an excluded reference"),
    ],
)
def test_which_lenses_are_taken_is_a_setting_and_the_others_have_a_reason(row, settings, reason):
    chosen = choose_lenses(lens_table(row), PositiveSettings(**settings))
    assert chosen.lenses.num_rows == (reason is None)
    assert list(reasons(chosen.left_out).values()) == ([] if reason is None else [reason])


def test_the_share_of_matched_lenses_is_of_those_in_the_footprint():
    here = str(tiny_survey.BRICKS.name[3])
    ra, dec = float(tiny_survey.BRICKS.ra[3]), float(tiny_survey.BRICKS.dec[3])
    inside = [lens(ra, dec + i * 20 * ARCSEC, name=str(i)) for i in range(10)]
    galaxies = [galaxy(ra, dec + i * 20 * ARCSEC, objid=i) for i in range(9)]
    settings = PositiveSettings()
    for count, passed in ((9, True), (8, False)):
        lenses = [*inside, lens(200.0, 5.0)]
        facts = positive_facts(
            choose_lenses(lens_table(*lenses), settings), matched(lenses, galaxies[:count], [here]), settings
        )
        gate = facts["gates"]["match_share"]
        assert (gate["value"], gate["n"], gate["passed"]) == (count / 10, 10, passed)
        assert facts["unmatched"] == {NO_GALAXY: 10 - count, OUTSIDE: 1}
    # One with a galaxy of another kind than negatives is matched all the same.
    galaxies[0]["TYPE"] = "EXP"
    facts = positive_facts(choose_lenses(lens_table(*lenses), settings), matched(lenses, galaxies, [here]), settings)
    assert facts["gates"]["match_share"]["value"] == 9 / 10
    assert facts["unmatched"] == {NO_GALAXY: 1, OUTSIDE: 1, OUTSIDE_CUTS: 1}


@pytest.fixture(scope="module")
def real_lenses(real_data) -> pa.Table:
    groups, _ = select(read_lenscat(real_data / "lenscat" / "catalog.csv"), LensSettings())
    return to_table(groups, match_theta_e(groups, LensSettings()), LensSettings())


def test_the_plans_positives_of_the_real_catalogue_are_those_named_by_desi(real_lenses):
    """5,104 rows have DESI in their names, some within 2 arcsec of one another; 6 of the lenses are clusters."""
    named = choose_lenses(real_lenses, PositiveSettings(dec_range=None, types=("galaxy", "group", "cluster"))).lenses
    taken = choose_lenses(real_lenses, PositiveSettings(dec_range=None)).lenses
    assert (named.num_rows, taken.num_rows) == (5_100, 5_094)
    default = choose_lenses(real_lenses, PositiveSettings())
    assert default.lenses.num_rows + default.left_out.num_rows == real_lenses.num_rows
    assert default.lenses.num_rows == 2_493  # and recall of every one is circular
    assert set(default.lenses["discovery"].to_pylist()) == {"machine_learning_this_survey"}


def test_no_cell_of_real_lenses_is_in_two_splits_as_a_hash_of_each_object_would_have_it(real_lenses):
    """Trap: the earlier positives' splits came from Python's hash of text; 118 cells of Tier B were in several."""
    tier_b = real_lenses.filter(pc.equal(real_lenses["tier_grade"], "B"))
    ra, dec = (tier_b[name].to_numpy() for name in ("ra", "dec"))
    cells = healpix_cell(ra, dec)

    def crossing(splits: np.ndarray) -> int:
        of_cell = defaultdict(set)
        for cell, split in zip(cells.tolist(), splits.tolist(), strict=True):
            of_cell[cell].add(split)
        return sum(len(found) > 1 for found in of_cell.values())

    by_object = np.array([split_of_key(f"{a:.4f}_{d:.4f}") for a, d in zip(ra, dec, strict=True)])
    assert crossing(by_object) >= 118
    assert crossing(split_of_cells(cells)) == 0


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    with spark_session(MASTER, "tests") as session:
        yield session


def _build(folder: Path, pieces: dict[str, np.ndarray], rows: np.ndarray) -> Path:
    """Positives of a survey whose lenses are some of its galaxies, one far outside, and one that is a cluster."""
    listed = [f"DESI-{i},{r['RA']:.7f},{r['DEC'] + ARCSEC:.7f},0.5,galaxy,confident,x" for i, r in enumerate(rows[::9])]
    listed += ["DESI-out,200,10,0.5,galaxy,probable,x", "DESI-cl,201,10,0.5,cluster,probable,x"]
    survey = tiny_survey.write_survey(folder, pieces, "\n".join(listed) + "\n")
    arguments = ["--survey", str(survey.description)]
    lens_lists.main([*arguments, "--output", str(folder / "lenses.json")])
    arguments += ["--lenses", str(folder / "lenses.json"), "--output", str(folder / "positives.json")]
    arguments += ["--settings", json.dumps({"dec_range": None}), "--pool-settings", json.dumps({"preset": "plan"})]
    positives.main([*arguments, "--spark-master", MASTER])
    return folder / "positives.json"


def test_every_lens_is_a_positive_or_has_a_reason_however_sweeps_are_cut(spark, tmp_path):
    rows = tiny_survey.field_rows(12)
    many = _build(tmp_path / "many", {f"sweep-{i:03d}p000-{i:03d}p001": rows[i::3] for i in range(3)}, rows)
    one = _build(tmp_path / "one", {"sweep-000p000-360p090": rows}, rows)
    manifest = load_manifest(many, "positives")
    assert manifest.rows_in == manifest.rows_out + manifest.rows_quarantined == len(rows[::9]) + 2
    assert manifest.rows_out == len(rows[::9])
    assert "quarantine/positives.parquet" in [entry.name for entry in object_list(manifest)]
    assert (manifest.facts["unmatched"], manifest.facts["failed"]) == ({OUTSIDE: 1}, [])
    assert manifest.facts["negatives_cuts"] == {"preset": "plan", "dereddened": False}
    assert sum(sum(tiers.values()) for tiers in manifest.facts["splits"].values()) == manifest.rows_out
    tables = [pq.read_table(verified_paths(load_manifest(path))[0]) for path in (many, one)]
    of_a_sweep = ["sweep_file", "row_index"]
    assert tables[0].drop_columns(of_a_sweep).equals(tables[1].drop_columns(of_a_sweep))
    table = tables[0]
    assert table["separation_arcsec"].to_numpy() == pytest.approx(1.0, abs=1e-3)
    assert [z is None for z in table["z_phot"].to_pylist()] == [i % 7 == 3 for i in table["objid"].to_pylist()]
    assert_disjoint(*(table[name].to_numpy() for name in ("ra", "dec", "healpix_128")), table["split"].to_pylist())


def test_no_positive_at_all_is_an_error_that_names_the_settings(spark, tmp_path):
    survey = tiny_survey.write_survey(tmp_path, {"sweep-000p000-360p090": tiny_survey.field_rows(1)})
    lens_lists.main(["--survey", str(survey.description), "--output", str(tmp_path / "lenses.json")])
    arguments = ["--survey", str(survey.description), "--lenses", str(tmp_path / "lenses.json")]
    with pytest.raises(BadInputError, match="look at desi_named, types, dec_range and same_cuts"):
        positives.main([*arguments, "--output", str(tmp_path / "positives.json"), "--spark-master", MASTER])
    assert not (tmp_path / "positives.json").exists()


def test_an_unknown_type_of_lens_is_refused(tmp_path):
    arguments = ["--survey", "x", "--lenses", "y", "--output", str(tmp_path / "z.json")]
    with pytest.raises(ConfigError, match="types"):
        positives.main([*arguments, "--settings", '{"types": ["star"]}'])
