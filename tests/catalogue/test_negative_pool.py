"""The negative pool: its cuts, classes, columns and gates, and that nothing near a lens or in two splits is in it."""

import json
from collections.abc import Iterator
from pathlib import Path

import healpy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import negative_scene
import tiny_survey
from dark_halo_scope.catalogue import lenses, measure_negative_pool, negative_pool
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.measure_negative_pool import measure_pool
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolGateSettings, NegativePoolSettings
from dark_halo_scope.catalogue.negative_rows import (
    POOL_SCHEMA,
    POOL_SWEEP_COLUMNS,
    UNITS,
    nobs_z_bins,
    select_negatives,
)
from dark_halo_scope.catalogue.splits import assert_disjoint
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest, object_list, verified_paths
from dark_halo_scope.spark.session import spark_session
from tiny_survey import flux

ARCSEC = 1 / 3600
MASTER = "local[2]"
NO_LENS = LensPositions(np.array([180.0]), np.array([80.0]))

# The schema of stored pools, as users' notebooks name them.
STORED_COLUMNS = """
galaxy_id brickname objid ra dec type nobs_z nobs_z_bin type_bin flux_g flux_r flux_z flux_w1 mag_g mag_r mag_z
g_minus_r r_minus_z z_minus_w1 psfsize_g psfsize_r psfsize_z psfdepth_g psfdepth_r psfdepth_z galdepth_g galdepth_r
galdepth_z ebv mw_transmission_g mw_transmission_r mw_transmission_z shape_r shape_e1 shape_e2 sersic maskbits
fitbits healpix_64 healpix_128 split pool confuser_category sweep_file row_index pipeline_version git_commit
extraction_timestamp
"""


def galaxy(r=19.8, kind="SER", **changes) -> dict:
    """A sweep row that both presets take, and that is no confuser."""
    values: dict = dict.fromkeys(POOL_SWEEP_COLUMNS, 0) | {
        "BRICKNAME": "0100p000",
        "TYPE": kind,
        "RA": 10.0,
        "DEC": 0.0,
    }
    mags = (("G", 21.0), ("R", r), ("Z", 19.0), ("W1", 18.5))
    values |= {f"FLUX_{b}": flux(m) for b, m in mags} | {f"MW_TRANSMISSION_{b}": 0.9 for b, _ in mags}
    values |= {f"NOBS_{b}": 4 for b in "GRZ"} | {"SHAPE_R": 1.0, "SHAPE_E1": 0.2, "SERSIC": 2.0, "EBV": 0.02}
    for number, name in enumerate(("PSFSIZE", "PSFDEPTH", "GALDEPTH")):
        values |= {f"{name}_{b}": 1.5 + 100.0 * number for b in "GRZ"}
    return values | changes


def pool_of(*rows: dict, lens: LensPositions = NO_LENS, **settings) -> pa.Table:
    sweep = pa.table({name: np.array([row[name] for row in rows]) for name in POOL_SWEEP_COLUMNS})
    return select_negatives(sweep, "sweep.fits", 0, lens, NegativePoolSettings(**settings)).rows


@pytest.mark.parametrize(
    ("changes", "executed", "plan"),
    [
        ({}, True, True),
        ({"TYPE": "EXP"}, False, False),
        ({"TYPE": "PSF"}, False, False),
        ({"NOBS_G": 1, "NOBS_R": 1}, False, True),
        ({"NOBS_Z": 2}, False, False),
        ({"MASKBITS": 1 << 2}, True, False),
        ({"MASKBITS": 1 << 12}, False, False),
        ({"DEC": 33.0}, False, True),
        ({"DEC": -19.0}, False, True),
        ({"FLUX_Z": flux(20.1)}, False, False),
        ({"FLUX_Z": 0.0}, True, True),
    ],
)
def test_each_preset_takes_its_own_rows(changes, executed, plan):
    row = galaxy(**changes)
    assert bool(pool_of(row, preset="executed").num_rows) == executed
    assert bool(pool_of(row, preset="plan").num_rows) == plan


@pytest.mark.parametrize(
    ("changes", "intended", "executed"),
    [
        ({}, None, None),
        ({"TYPE": "DEV", "SERSIC": 4.0}, "ring_proxy", "ring_proxy"),
        ({"SERSIC": 4.0}, "ring_proxy", None),
        ({"SHAPE_E1": 0.6}, "edge_on_proxy", None),
        ({"SHAPE_R": 1.9, "FLUX_R": flux(21.4)}, None, "edge_on_proxy"),
        ({"FLUX_G": flux(20.1)}, "blue_clumpy", "blue_clumpy"),
        ({"TYPE": "REX", "SHAPE_R": 2.1, "SHAPE_E1": 0.0}, "large_galaxy", "large_galaxy"),
    ],
)
def test_confusers_are_those_of_the_thresholds_and_the_rest_is_n1(changes, intended, executed):
    for thresholds, expected in (("intended", intended), ("executed", executed)):
        for preset in ("plan", "executed"):
            [row] = pool_of(galaxy(**changes), preset=preset, confusers=thresholds).to_pylist()
            assert (row["pool"], row["confuser_category"]) == ("N1" if expected is None else "N2", expected)


def test_extinction_counts_only_when_asked_for():
    faint = galaxy(FLUX_Z=flux(20.05))
    assert not pool_of(faint).num_rows
    assert pool_of(faint, dereddened=True).num_rows == 1


def test_bins_of_exposures_are_those_of_the_plan():
    expected = ["", "1-2", "1-2", "3-5", "3-5", "6-10", "6-10", "11+", "11+"]
    assert nobs_z_bins([0, 1, 2, 3, 5, 6, 10, 11, 40]).tolist() == expected


def test_columns_are_the_stored_ones_by_name_and_order():
    assert POOL_SCHEMA.names == STORED_COLUMNS.split()
    assert len(POOL_SCHEMA) == 48


def test_a_row_says_what_its_sweep_says_with_depths_as_inverse_variances():
    [row] = pool_of(galaxy(OBJID=77, NOBS_Z=7, FLUX_W1=-1.0, PSFSIZE_G=0.0, FITBITS=3)).to_pylist()
    assert (row["galaxy_id"], row["objid"], row["type_bin"], row["nobs_z_bin"]) == ("0100p000_77", 77, "SER", "6-10")
    assert (row["psfdepth_r"], row["galdepth_r"]) == (101.5, 201.5)
    assert UNITS["psfdepth_r"] == UNITS["galdepth_r"] == "nanomaggy^-2"
    assert row["mag_r"] == pytest.approx(19.8, abs=1e-5)
    assert row["g_minus_r"] == pytest.approx(1.2, abs=1e-5)
    assert row["z_minus_w1"] is None
    assert row["psfsize_g"] is None
    assert (row["sweep_file"], row["row_index"], row["fitbits"]) == ("sweep.fits", 0, 3)


@pytest.mark.parametrize("ra", [10.0, 0.0, 359.99])
def test_nothing_within_11_arcsec_of_a_lens_is_a_negative(ra):
    """In double precision: a right ascension of 32 bits is off by up to 0.06 arcsec there."""
    rows = [
        galaxy(OBJID=i, RA=(ra + arcsec * ARCSEC) % 360) for i, arcsec in enumerate((0, 10.98, -10.98, 11.02, -11.02))
    ]
    found = pool_of(*rows, lens=LensPositions(np.array([ra]), np.array([0.0])))
    assert found["objid"].to_pylist() == [3, 4]


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    with spark_session(MASTER, "tests") as session:
        yield session


def _field() -> np.ndarray:
    """Rows of the tiny survey that the pool takes; 3: bad, 5: named as 4, the last two: one object in two splits."""
    ra, dec = tiny_survey.pair_across_ra_0()
    rows = np.concatenate([tiny_survey.field_rows(12), tiny_survey.lrg_rows(ra, dec, 9000)])
    rows["FLUX_G"][3] = np.nan
    for name in ("OBJID", "BRICKID", "BRICKNAME"):
        rows[name][5] = rows[name][4]
    return rows


def _build(folder: Path, sweeps: dict[str, np.ndarray], near: np.void, **changes) -> Path:
    survey = tiny_survey.write_survey(
        folder, sweeps, f"a lens,{near['RA']:.7f},{near['DEC']:.7f},0.5,galaxy,probable,x\n"
    )
    arguments = ["--survey", str(survey.description)]
    lenses.main([*arguments, "--output", str(folder / "lenses.json")])
    arguments += ["--lenses", str(folder / "lenses.json"), "--output", str(folder / "negative_pool.json")]
    settings = {"preset": "plan", "rows_per_file": 25, "max_quarantined": 0.1} | changes
    negative_pool.main([*arguments, "--settings", json.dumps(settings), "--spark-master", MASTER])
    return folder / "negative_pool.json"


def _table(path: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in verified_paths(load_manifest(path)))


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory) -> tuple[Path, np.ndarray]:
    rows = _field()
    pieces = {f"sweep-{i:03d}p000-{i:03d}p001": rows[i::3] for i in range(3)}
    return _build(tmp_path_factory.mktemp("pool"), pieces, rows[20]), rows


def test_every_row_is_a_negative_quarantined_or_cut_with_the_reason(built):
    path, rows = built
    manifest = load_manifest(path, "negative_pool")
    reasons = [
        reason
        for entry in object_list(manifest)
        if entry.name.startswith("quarantine/")
        for reason in pq.read_table(path.parent / Path(manifest.uri).relative_to(path.parent) / entry.name)[
            "quarantine_reason"
        ].to_pylist()
    ]
    assert sorted(reason.split(" (")[0] for reason in reasons) == [
        "FLUX_G is not finite",
        "duplicate of an identifier",
        "within reach of an object of another split",
        "within reach of an object of another split",
    ]
    assert manifest.facts["no_negatives"] == {"near_lens": 1, "outside_pool": 0}
    assert manifest.rows_out == len(rows) - 5
    assert manifest.rows_in == manifest.rows_out + manifest.rows_quarantined == len(rows) - 1
    assert sum(manifest.facts["counts"]["split"].values()) == manifest.rows_out


def test_cells_and_splits_follow_from_positions(built):
    table = _table(built[0])
    assert table.schema.equals(POOL_SCHEMA)
    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    assert_disjoint(ra, dec, table["healpix_128"].to_numpy(), table["split"].to_numpy(zero_copy_only=False).astype(str))
    np.testing.assert_array_equal(table["healpix_64"], healpy.ang2pix(64, ra, dec, nest=True, lonlat=True))


def test_rows_and_their_files_do_not_depend_on_how_sweeps_are_cut(built, spark, tmp_path):
    path, rows = built
    one = _build(tmp_path / "one", {"sweep-000p000-360p090": rows}, rows[20])
    of_a_sweep = ["sweep_file", "row_index"]
    files = [verified_paths(load_manifest(p)) for p in (path, one)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert len(files[0]) > 2
    for first, second in zip(*files, strict=True):
        assert pq.read_table(first).drop_columns(of_a_sweep).equals(pq.read_table(second).drop_columns(of_a_sweep))


def test_too_many_bad_rows_fail_and_leave_nothing(spark, tmp_path):
    rows = _field()
    with pytest.raises(BadInputError, match="quarantined 4 of 98 rows"):
        _build(tmp_path / "bad", {"sweep-000p000-360p090": rows}, rows[20], max_quarantined=0.001)
    assert not (tmp_path / "bad" / "negative_pool.json").exists()


def gates_of(table: pa.Table, lens: LensPositions = NO_LENS) -> dict:
    parts = [table.slice(0, 700), table.slice(700)]
    return measure_pool(parts, lens, NegativePoolGateSettings(min_rows=1000), NegativePoolSettings())


@pytest.fixture(scope="module")
def good() -> pa.Table:
    return negative_scene.pool_table(2000, n2_share=0.2)


def changed(table: pa.Table, name: str, values: object) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def test_a_good_pool_passes_every_gate_with_its_counts(good):
    result = gates_of(good)
    assert result["failed"] == []
    n2 = result["gates"]["n2_share"]
    assert n2["k"] == pc.sum(pc.equal(good["pool"], "N2")).as_py() == result["counts"]["pool"]["N2"]
    assert n2["value"] == n2["k"] / n2["n"]
    assert {name: one["value"] for name, one in result["gates"].items() if name in ("rows", "types", "nulls")} == {
        "rows": 2000,
        "types": 3,
        "nulls": 0,
    }


def _one_wrong(table: pa.Table, name: str, value: object) -> pa.Table:
    return changed(table, name, [value, *table[name].to_pylist()[1:]])


@pytest.mark.parametrize(
    ("gate", "spoil", "value"),
    [
        ("rows", lambda t: t.slice(0, 900), 900),
        ("duplicates", lambda t: pa.concat_tables([t, t.slice(5, 3)]), 3),
        ("n1_share", lambda t: changed(t, "pool", ["N2"] * len(t)), 0.0),
        ("n2_share", lambda t: changed(t, "pool", ["N1"] * len(t)), 0.0),
        ("train_share", lambda t: changed(t, "split", ["val"] * len(t)), 0.0),
        ("types", lambda t: changed(t, "type_bin", ["SER"] * len(t)), 1),
        ("nulls", lambda t: _one_wrong(t, "nobs_z", None), 1),
        ("splits_not_of_their_cell", lambda t: _one_wrong(t, "split", "nowhere"), 1),
        ("cells_not_of_their_position", lambda t: _one_wrong(t, "ra", float("nan")), 1),
    ],
)
def test_each_gate_notices_what_it_is_for(good, gate, spoil, value):
    result = gates_of(spoil(good))
    assert gate in result["failed"]
    assert result["gates"][gate]["value"] == value


def test_cells_that_are_hashes_of_each_object_are_noticed(good):
    """As the earlier pool's are: every object in a cell of its own, wherever it lies."""
    cells = np.random.default_rng(1).integers(0, 12 * 128**2, len(good))
    assert gates_of(changed(good, "healpix_128", cells))["gates"]["cells_not_of_their_position"]["value"] > 1990


def test_a_negative_beside_a_lens_is_noticed(good):
    lens = LensPositions(good["ra"].to_numpy()[:2], good["dec"].to_numpy()[:2] + 10 * ARCSEC)
    assert gates_of(good, lens)["gates"]["near_lens"]["value"] == 2


def test_an_empty_pool_is_not_measurable_and_passes_no_share():
    result = measure_pool([], NO_LENS, NegativePoolGateSettings(), NegativePoolSettings())
    assert result["gates"]["n1_share"]["value"] is None
    assert result["gates"]["n1_share"]["status"].startswith("not measurable")
    assert set(result["failed"]) == set(result["gates"])


def test_gates_record_and_never_stop(good, tmp_path):
    pool = negative_scene.write_pool(tmp_path / "negative_pool.json", [good.slice(0, 50)])
    survey = tiny_survey.write_survey(tmp_path / "survey", {"sweep-000p000-360p090": tiny_survey.field_rows(1)})
    lenses.main(["--survey", str(survey.description), "--output", str(tmp_path / "lenses.json")])
    output = tmp_path / "negative_pool_gates.json"
    inputs = ["--pool", str(pool), "--lenses", str(tmp_path / "lenses.json")]
    measure_negative_pool.main([*inputs, "--output", str(output)])
    assert "rows" in json.loads(output.read_text())["failed"]
