"""Confusers: each rule takes what it names and nothing just outside it, and known lenses are never among them."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_survey
from dark_halo_scope.catalogue import lenses, select_confusers
from dark_halo_scope.catalogue.config import ConfuserPreset, ConfuserSettings
from dark_halo_scope.catalogue.confusers import RULES, confuser_classes, in_pool, neighbours
from dark_halo_scope.catalogue.selection import SWEEP_COLUMNS
from dark_halo_scope.catalogue.splits import assert_disjoint
from dark_halo_scope.core.manifest import load_manifest, object_list, verified_paths
from dark_halo_scope.spark.session import spark_session
from tiny_survey import flux

ARCSEC = 1 / 3600
MASTER = "local[2]"


def galaxy(g=20.5, r=19.5, z=18.9, kind="EXP", size=1.0, e=0.2, sersic=1.0, east=0.0, **changes) -> dict:
    """A sweep row of a galaxy that is no confuser, unless told otherwise; `east` moves it, in arcsec at Dec 0."""
    values = dict.fromkeys(SWEEP_COLUMNS, 0) | {"BRICKNAME": "0100p000", "TYPE": kind, "RELEASE": 10000}
    values |= {f"FLUX_{b}": flux(m) for b, m in (("G", g), ("R", r), ("Z", z), ("W1", z - 0.2))}
    values |= {f"MW_TRANSMISSION_{b}": 1.0 for b in ("G", "R", "Z", "W1")} | {f"NOBS_{b}": 3 for b in "GRZ"}
    values |= {f"PSFSIZE_{b}": 1.3 for b in "GRZ"} | {f"PSFDEPTH_{b}": 100.0 for b in "GRZ"}
    values |= {"RA": 10.0 + east * ARCSEC, "DEC": 0.0, "SHAPE_R": size, "SHAPE_E1": e, "SERSIC": sersic, "EBV": 0.02}
    return values | changes


LRG = {"g": 21.2, "r": 19.6, "z": 18.7, "kind": "REX", "e": 0.0, "FLUX_W1": flux(17.4)}


def columns(*rows: dict) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in SWEEP_COLUMNS}


def classes(*rows: dict, preset: ConfuserPreset = "intended") -> list[str]:
    rules = RULES[preset]
    return confuser_classes(columns(*rows), rules, neighbours([columns(*rows)], rules)).tolist()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"kind": "DEV", "sersic": 4.0}, "ring_proxy"),
        ({"kind": "DEV", "r": 20.74, "sersic": 4.0}, "ring_proxy"),
        ({"kind": "DEV", "r": 20.76, "sersic": 4.0}, ""),
        ({"kind": "SER", "sersic": 4.0}, "ring_proxy"),
        ({"kind": "SER", "sersic": 3.9}, ""),
        ({"e": 0.5, "size": 0.6}, "edge_on_proxy"),
        ({"e": 0.49, "size": 0.6}, ""),
        ({"e": 0.5, "size": 0.59}, ""),
        ({"e": -0.36, "SHAPE_E2": 0.36}, "edge_on_proxy"),
        ({"kind": "REX", "e": 0.6}, ""),
        ({"g": 19.89}, "blue_clumpy"),
        ({"g": 19.91}, ""),
        ({"g": 20.8, "r": 20.49}, "blue_clumpy"),
        ({"g": 20.8, "r": 20.51}, ""),
        ({"size": 2.0}, "large_galaxy"),
        ({"size": 1.99}, ""),
        ({"size": 2.0, "r": 21.4}, ""),
        ({"kind": "DEV", "sersic": 4.0, "e": 0.6, "size": 3.0, "g": 19.6}, "ring_proxy"),
        ({"e": 0.6, "size": 3.0, "g": 19.6}, "edge_on_proxy"),
        ({"size": 3.0, "g": 19.6}, "blue_clumpy"),
    ],
)
def test_each_proxy_takes_what_it_names_and_the_first_that_fits_wins(changes, expected):
    assert classes(galaxy(**changes)) == [expected]


@pytest.mark.parametrize(
    ("changes", "preset", "inside"),
    [
        ({}, "intended", True),
        ({"kind": "PSF"}, "intended", False),
        ({"kind": "EXP"}, "executed", False),
        ({"kind": "SER", "MASKBITS": 1 << 1}, "intended", False),
        ({"kind": "SER", "MASKBITS": 1 << 8}, "intended", True),
        ({"kind": "SER", "MASKBITS": 1 << 8}, "plan", False),
        ({"kind": "SER", "NOBS_G": 2}, "intended", False),
        ({"kind": "SER", "NOBS_G": 2}, "plan", True),
        ({"kind": "SER", "z": 20.01}, "intended", False),
        ({"kind": "SER", "FLUX_Z": -1.0}, "intended", False),
        ({"kind": "SER", "FLUX_Z": -1.0}, "executed", True),
        ({"kind": "SER", "DEC": -18.1}, "executed", False),
        ({"kind": "SER", "DEC": -18.1}, "intended", True),
        ({"kind": "SER", "z": 20.05, "MW_TRANSMISSION_Z": 0.9}, "intended", True),
        ({"kind": "SER", "z": 20.05, "MW_TRANSMISSION_Z": 0.9}, "plan", False),
    ],
)
def test_the_pool_is_that_of_the_preset(changes, preset, inside):
    assert in_pool(columns(galaxy(**changes)), RULES[preset]).tolist() == [inside]


def test_as_executed_size_stands_for_ellipticity_and_only_devaucouleurs_are_rings():
    def executed(**changes) -> str:
        return classes(galaxy(**changes), preset="executed")[0]

    assert executed(kind="SER", e=0.0, size=1.8) == "edge_on_proxy"
    assert executed(kind="SER", e=0.9, size=1.79) == ""
    assert executed(kind="SER", sersic=5.0, size=1.0) == ""
    assert executed(kind="DEV", sersic=4.0) == "ring_proxy"
    assert executed(kind="REX", size=2.1, e=0.0) == "large_galaxy"


def test_two_comparable_galaxies_of_one_colour_within_reach_are_a_merger():
    one, other = galaxy(**LRG), {**LRG, "r": 21.0, "g": 22.6, "z": 20.1, "FLUX_W1": flux(18.8)}
    assert classes(one, galaxy(**other, east=2.5)) == ["merger", ""], "the fainter one is outside the pool"
    assert classes(one, galaxy(**LRG, east=2.5)) == ["merger", "merger"]
    for apart in (0.9, 4.1):
        assert classes(one, galaxy(**LRG, east=apart)) == ["", ""]
    assert classes(one, galaxy(**other | {"r": 21.2, "g": 22.8}, east=2.5))[0] == "", "fainter than 4 : 1"
    assert classes(one, galaxy(**other | {"g": 22.2}, east=2.5))[0] == "", "of another colour"
    assert classes(one, galaxy(**LRG | {"kind": "PSF"}, east=2.5))[0] == "", "a star"
    assert classes(one, galaxy(**LRG, east=2.5), preset="executed") == ["", ""]


def test_one_bluer_source_beside_a_red_galaxy_is_a_companion_and_two_are_not():
    lrg, blue = galaxy(**LRG), {"g": 22.0, "r": 21.5, "z": 21.3, "kind": "REX"}
    assert classes(lrg, galaxy(**blue, east=1.5)) == ["companion", ""]
    assert classes(lrg, galaxy(**blue | {"kind": "PSF"}, east=3.9))[0] == "companion"
    assert classes(lrg, galaxy(**blue, east=1.5), galaxy(**blue, east=-2.0))[0] == "", "an image and a counter-image"
    assert classes(lrg, galaxy(**blue, east=4.1))[0] == ""
    assert classes(lrg, galaxy(**blue | {"g": 22.8}, east=1.5))[0] == "", "not bluer by 0.4 mag"
    assert classes(lrg, galaxy(**blue | {"r": 20.0, "g": 20.5}, east=1.5))[0] == "", "not fainter by 0.5 mag"
    assert classes(galaxy(), galaxy(**blue | {"g": 21.6}, east=1.5))[0] == "", "beside a galaxy that is not red"


def test_a_neighbour_is_seen_across_ra_0():
    one, other = galaxy(**LRG), galaxy(**LRG)
    one["RA"], other["RA"] = 1.2 * ARCSEC, 360 - 1.2 * ARCSEC
    assert classes(one, other) == ["merger", "merger"]


@given(st.permutations(range(8)))
def test_the_class_does_not_depend_on_the_order_of_rows(order):
    rows = [galaxy(**LRG), galaxy(g=22.0, r=21.5, east=1.5), galaxy(east=60), galaxy(size=3, east=90)]
    rows += [galaxy(**LRG, east=200), galaxy(**LRG, east=202), galaxy(kind="DEV", sersic=4.0, east=300)]
    rows += [galaxy(e=0.7, east=400)]
    straight = classes(*rows)
    assert classes(*(rows[i] for i in order)) == [straight[i] for i in order]
    assert {"companion", "merger", "ring_proxy", "edge_on_proxy", "large_galaxy", ""} == set(straight)


def test_known_lenses_and_their_surroundings_are_no_confusers_and_every_row_is_accounted_for():
    rows = [galaxy(size=3.0), galaxy(size=3.0, east=30), galaxy(east=60), galaxy(size=3, FLUX_R=np.nan, east=90)]
    rows += [galaxy(size=3.0, kind="PSF", east=120)]
    sweep, around = pa.table(columns(*rows)), neighbours([], RULES["intended"])
    ra, dec = np.array([10.0 + 10.9 * ARCSEC]), np.array([0.0])
    found, counts = select_confusers.select_confusers(sweep, around, ra, dec, ConfuserSettings())
    assert found["ra"].to_pylist() == [10.0 + 30 * ARCSEC]
    assert found["confuser"].to_pylist() == ["large_galaxy"]
    assert dict(counts) == {"read": 5, "bad": 1, "near_lens": 1, "outside_pool": 1, "no_confuser": 1}
    beyond, _ = select_confusers.select_confusers(sweep, around, ra + 0.2 * ARCSEC, dec, ConfuserSettings())
    assert beyond.num_rows == 2


@pytest.mark.parametrize("part_rows", [1, 3, 1000])
def test_a_neighbour_is_seen_however_few_rows_are_read_at_once_unless_it_is_a_bad_row(tmp_path, part_rows):
    ra, dec = tiny_survey.CENTRES[3]
    east = np.array([0.0, 60.0, 120.0, 180.0, 2.5, 62.5, 122.5]) * ARCSEC
    rows = tiny_survey.lrg_rows(ra + east / np.cos(np.radians(dec)), np.full(7, dec))
    rows["FLUX_W1"][4] = np.nan
    path = tmp_path / "sweep.fits"
    fitsio.write(path, rows)
    none = np.empty(0)
    parts = list(select_confusers.select_file(path, None, ["dr10"], none, none, ConfuserSettings(), part_rows))
    assert len(parts) == -(-7 // part_rows)
    found = pa.concat_tables(table for table, _ in parts)
    mergers = found.filter(pc.equal(found["confuser"], "merger"))
    assert mergers["objid"].to_pylist() == [1, 2, 5, 6]
    assert sum((counts for _, counts in parts), Counter()) == Counter(read=7, bad=1, no_confuser=2)


def test_rules_without_company_need_no_neighbours():
    assert neighbours([columns(galaxy())], RULES["executed"]).tree.n == 0
    assert neighbours([columns(galaxy()), columns(galaxy(r=24.1), galaxy())], RULES["intended"]).tree.n == 2


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    with spark_session(MASTER, "tests") as session:
        yield session


def _field() -> np.ndarray:
    """Galaxies that are rings by the rule, in the bricks of the tiny survey; one of them twice, one beside a lens."""
    rows = tiny_survey.field_rows(8)
    rows["TYPE"], rows["SERSIC"] = "DEV", 4.0
    rows["OBJID"][5] = rows["OBJID"][4]
    rows["BRICKID"][5], rows["BRICKNAME"][5] = rows["BRICKID"][4], rows["BRICKNAME"][4]
    return rows


def _select(folder: Path, sweeps: dict[str, np.ndarray], near: np.void) -> Path:
    survey = tiny_survey.write_survey(
        folder, sweeps, f"a lens,{near['RA']:.7f},{near['DEC']:.7f},0.5,galaxy,probable,x\n"
    )
    arguments = ["--survey", str(survey.description)]
    lenses.main([*arguments, "--output", str(folder / "lenses.json")])
    arguments += ["--lenses", str(folder / "lenses.json"), "--output", str(folder / "confusers.json")]
    select_confusers.main([*arguments, "--settings", json.dumps({"rows_per_file": 15}), "--spark-master", MASTER])
    return folder / "confusers.json"


def test_the_same_bytes_however_rows_are_cut_into_sweeps(spark, tmp_path):
    rows = _field()
    one = _select(tmp_path / "one", {"sweep-000p000-360p090": rows}, rows[20])
    pieces = {f"sweep-{i:03d}p000-{i:03d}p001": rows[i::3] for i in (2, 0, 1)}
    three = _select(tmp_path / "three", pieces, rows[20])
    assert object_list(load_manifest(one)) == object_list(load_manifest(three))
    manifest = load_manifest(one, "confusers")
    assert 3 <= len(object_list(manifest)) <= 5, "62 rows in up to five files, a brick in one of them"
    assert manifest.facts["rows"]["duplicates"] == manifest.rows_quarantined == 1
    assert manifest.facts["rows"]["near_lens"] == 1
    counted = [count for splits in manifest.facts["classes"].values() for count in splits.values()]
    assert manifest.rows_out == len(rows) - 2 == sum(counted)
    table = pa.concat_tables(pq.read_table(path) for path in verified_paths(manifest))
    assert table.schema.equals(select_confusers.CONFUSER_SCHEMA)
    ra, dec, cell, split = (table[name].to_numpy() for name in ("ra", "dec", "healpix_128", "split"))
    assert_disjoint(ra, dec, cell, split.astype(str))
