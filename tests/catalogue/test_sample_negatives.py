"""The stratified sample: exact numbers, the same galaxies however the pool is cut, shortfalls said, shares recorded."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.catalogue import sample_negatives
from dark_halo_scope.catalogue.negative_pool_config import NegativeSampleSettings
from dark_halo_scope.catalogue.sample_negatives import (
    SAMPLE_SCHEMA,
    count_positives,
    sample_facts,
    surplus_galaxies,
)
from dark_halo_scope.catalogue.stratified_sample import (
    BUCKETS,
    Boundary,
    boundary,
    buckets_of,
    plan_strata,
    sampling_hash,
)
from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.manifest import attempt, load_manifest, object_list, verified_paths
from dark_halo_scope.spark.session import spark_session
from negative_scene import pool_table, write_pool

MASTER = "local[2]"
SER = ("3-5", "SER")


def one_plan(positives: int, n1: int, n2: int, per_positive: int = 100, n2_share: float = 0.15):
    [plan] = plan_strata({SER: positives}, {(*SER, "N1"): n1, (*SER, "N2"): n2}, per_positive, n2_share)
    return plan


@pytest.mark.parametrize(
    ("positives", "n1", "n2", "taken", "n2_shortfall", "shortfall"),
    [
        (1, 1000, 1000, (85, 15), 0, 0),
        (7, 1000, 1000, (595, 105), 0, 0),
        (1, 1000, 4, (96, 4), 11, 0),
        (1, 1000, 0, (100, 0), 15, 0),
        # More confusers would change the mix: nothing stands in for missing N1.
        (1, 60, 1000, (60, 15), 0, 25),
        (1, 90, 4, (90, 4), 11, 6),
        (1, 0, 0, (0, 0), 15, 100),
        (0, 1000, 1000, (0, 0), 0, 0),
    ],
)
def test_a_stratum_has_100_for_each_positive_85_to_15_and_n1_stands_in_for_missing_confusers(
    positives, n1, n2, taken, n2_shortfall, shortfall
):
    plan = one_plan(positives, n1, n2)
    assert (plan.taken["N1"], plan.taken["N2"]) == taken
    assert (plan.n2_shortfall, plan.shortfall) == (n2_shortfall, shortfall)
    record = plan.as_record()
    assert record["n2_filled_from_n1"] == max(0, taken[0] - round(0.85 * 100 * positives))


def test_half_a_confuser_is_rounded_up():
    assert [one_plan(1, 99, 99, per_positive=n).taken["N2"] for n in (1, 3, 4, 10, 30)] == [0, 0, 1, 2, 5]


def test_what_no_sampled_row_stands_for_is_not_covered():
    pool = {(*SER, "N1"): 60, (*SER, "N2"): 10, ("1-2", "DEV", "N1"): 20, ("3-5", "DEV", "N2"): 10}
    # Of SER N1 alone: one wanted negative is no confuser; the other strata have no positives.
    plans = plan_strata({SER: 1}, pool, 1, 0.15)
    assert sample_facts(plans, NegativeSampleSettings())["covered_share"] == 0.6
    plans = plan_strata({SER: 1}, pool, 10, 0.15)
    assert sample_facts(plans, NegativeSampleSettings())["covered_share"] == 0.7
    assert sample_facts([], NegativeSampleSettings())["covered_share"] is None


def test_strata_without_positives_or_without_negatives_are_reported():
    plans = plan_strata({("11+", "EXP"): 2}, {(*SER, "N1"): 5}, 10, 0.15)
    assert [(plan.stratum, plan.target, plan.shortfall) for plan in plans] == [(("11+", "EXP"), 20, 20), (SER, 0, 0)]


@given(
    st.integers(0, 50),
    st.integers(0, 6000),
    st.integers(0, 2000),
    st.integers(1, 120),
    st.floats(0, 1, allow_nan=False),
)
def test_no_plan_takes_more_than_there_is_or_is_wanted(positives, n1, n2, per_positive, n2_share):
    plan = one_plan(positives, n1, n2, per_positive, n2_share)
    assert 0 <= plan.taken["N1"] <= n1
    assert 0 <= plan.taken["N2"] <= n2
    assert plan.shortfall >= 0
    if n1 >= plan.target:
        assert plan.shortfall == 0


def reference_hash(brickname: str, objid: int, seed: int) -> int:
    """SplitMix64 as its authors write it, in integers of any length."""
    import hashlib

    mask = 2**64 - 1
    x = int.from_bytes(hashlib.sha256(f"{brickname}_{seed}".encode()).digest()[:8], "big")
    x = (x + objid * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def hashes(names: list[str], objids: list[int], seed: int = 42) -> list[int]:
    return sampling_hash(pa.array(names).dictionary_encode(), np.array(objids, np.int32), seed).tolist()


@given(
    st.lists(st.tuples(st.sampled_from(["0001p000", "1999m125", "3599p050"]), st.integers(0, 2**31 - 1)), max_size=20),
    st.integers(0, 9),
)
def test_the_hash_is_that_of_the_name_and_the_seed_alone(galaxies, seed):
    found = hashes([name for name, _ in galaxies], [objid for _, objid in galaxies], seed)
    assert found == [reference_hash(name, objid, seed) for name, objid in galaxies]


def test_hashes_are_uniform_across_and_within_bricks_and_differ_within_a_brick():
    names = np.repeat([f"{i:04d}p000" for i in range(50)], 4000)
    found = sampling_hash(pa.array(names).dictionary_encode(), np.tile(np.arange(4000), 50), 42)
    counts = np.bincount(buckets_of(found), minlength=BUCKETS)
    chi_squared = np.sum((counts - counts.mean()) ** 2) / counts.mean()
    # Five standard deviations of chi squared with BUCKETS - 1 degrees of freedom.
    assert abs(chi_squared - BUCKETS) < 5 * np.sqrt(2 * BUCKETS)
    assert len(np.unique(found[:4000])) == 4000


@given(st.lists(st.integers(0, 5), min_size=BUCKETS, max_size=BUCKETS), st.floats(0, 1))
def test_a_boundary_leaves_exactly_as_many_as_are_taken(histogram, share):
    counts = np.array(histogram)
    take = int(share * counts.sum())
    end = boundary(counts, take)
    assert counts[: max(end.bucket, 0)].sum() + end.within == take
    if take:
        assert 0 < end.within <= counts[end.bucket]


def test_more_than_there_is_has_no_boundary():
    with pytest.raises(ValueError, match="4 galaxies are to be taken of 3"):
        boundary(np.array([1, 2]), 4)


def test_ties_are_broken_by_name_and_the_highest_hashes_are_the_largest_numbers():
    group = (*SER, "N1")
    last = [(group, 5, "c"), (group, 2**64 - 1, "e"), (group, 5, "b"), (group, 5, "a"), (group, 2**63, "d")]
    assert [surplus_galaxies(last, {group: Boundary(0, within)}) for within in (5, 4, 3, 2)] == [
        [],
        ["e"],
        ["d", "e"],
        ["c", "d", "e"],
    ]


def test_positives_are_counted_by_stratum_and_those_without_one_apart():
    table = pa.table({"nobs_z": [3, 5, 0, None, 12, 4], "type": ["SER", "SER ", "SER", "DEV", "REX", None]})
    assert count_positives(table) == ({("3-5", "SER"): 2, ("11+", "REX"): 1}, 3)


def test_the_earlier_pipelines_gates_are_recorded():
    settings = NegativeSampleSettings(per_positive=100)
    plans = plan_strata({SER: 1, ("11+", "DEV"): 1}, {(*SER, "N1"): 85, (*SER, "N2"): 15}, 100, 0.15)
    facts = sample_facts(plans, settings)
    assert facts["failed"] == ["count_ratio", "empty_strata"]
    assert facts["gates"]["count_ratio"]["value"] == 0.5
    assert facts["gates"]["n1_share"]["value"] == 0.85
    assert (facts["target"], facts["shortfall"], facts["n2_shortfall"]) == (200, 100, 15)


@pytest.mark.parametrize(
    ("positives", "message"), [({"3-4": {"SER": 1}}, "no bin of nobs_z"), ({"3-5": {"SER": -1}}, "negative number")]
)
def test_unknown_bins_and_negative_numbers_are_refused(positives, message):
    with pytest.raises(ValueError, match=message):
        NegativeSampleSettings(positives=positives)


# --- The job ----------------------------------------------------------------------------------------------------------

POSITIVES = {"3-5": {"SER": 40, "DEV": 20, "REX": 0}, "6-10": {"REX": 30, "EXP": 3}, "11+": {"SER": 60}}


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    with spark_session(MASTER, "tests") as session:
        yield session


@pytest.fixture(scope="module")
def pool() -> pa.Table:
    return pool_table(12_000, seed=3, n2_share=0.1)


def sample(folder: Path, parts: list[pa.Table], *more: str, **changes) -> Path:
    path = write_pool(folder / "negative_pool.json", parts)
    settings = {"per_positive": 10, "positives": POSITIVES, "rows_per_file": 300} | changes
    arguments = ["--pool", str(path), "--output", str(folder / "negatives.json"), "--spark-master", MASTER, *more]
    sample_negatives.main([*arguments, "--settings", json.dumps(settings)])
    return folder / "negatives.json"


def table_of(path: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in verified_paths(load_manifest(path, "negatives")))


@pytest.fixture(scope="module")
def sampled(spark, pool, tmp_path_factory) -> Path:
    return sample(tmp_path_factory.mktemp("one"), [pool])


def test_the_sample_is_what_a_sort_of_every_stratum_gives(sampled, pool):
    groups: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for row in pool.select(["nobs_z_bin", "type_bin", "pool", "brickname", "objid", "galaxy_id"]).to_pylist():
        key = (row["nobs_z_bin"], row["type_bin"], row["pool"])
        number = reference_hash(row["brickname"], row["objid"], 42)
        groups.setdefault(key, []).append((number, row["galaxy_id"]))
    plans = plan_strata(
        {(name, kind): count for name, types in POSITIVES.items() for kind, count in types.items()},
        {key: len(found) for key, found in groups.items()},
        10,
        0.15,
    )
    expected = {
        name
        for plan in plans
        for pool, count in plan.taken.items()
        if count
        for _, name in sorted(groups[*plan.stratum, pool])[:count]
    }
    table = table_of(sampled)
    assert set(table["galaxy_id"].to_pylist()) == expected
    assert len(table) == len(expected) == load_manifest(sampled).rows_out
    assert any(plan.n2_shortfall for plan in plans), "the case that N1 stands in is among them"
    assert any(plan.shortfall for plan in plans), "and so is a real shortfall"


def test_the_same_bytes_however_the_pool_is_cut_into_files(sampled, spark, pool, tmp_path):
    order = np.random.default_rng(8).permutation(len(pool))
    shuffled = pool.take(order)
    parts = [shuffled.slice(i * 1700, 1700) for i in range(8)]
    again = sample(tmp_path, parts)
    assert object_list(load_manifest(again)) == object_list(load_manifest(sampled))
    assert load_manifest(again).facts == load_manifest(sampled).facts
    assert len(object_list(load_manifest(again))) > 3


def test_rows_keep_all_that_the_pool_says_and_their_share(sampled, pool):
    table = table_of(sampled)
    assert table.schema.equals(SAMPLE_SCHEMA)
    by_name = {row["galaxy_id"]: row for row in pool.to_pylist()}
    rows = table.to_pylist()
    assert all({name: row[name] for name in pool.column_names} == by_name[row["galaxy_id"]] for row in rows)
    weights: Counter = Counter()
    sizes: Counter = Counter((row["nobs_z_bin"], row["type_bin"], row["pool"]) for row in by_name.values())
    for row in rows:
        weights[row["nobs_z_bin"], row["type_bin"], row["pool"]] += 1 / row["sampling_prob"]
    assert weights
    assert all(total == pytest.approx(sizes[key]) for key, total in weights.items())


def test_a_larger_sample_holds_the_smaller_one_and_another_seed_gives_another(sampled, spark, pool, tmp_path):
    names = set(table_of(sampled)["galaxy_id"].to_pylist())
    larger = set(table_of(sample(tmp_path / "larger", [pool], per_positive=12))["galaxy_id"].to_pylist())
    other = set(table_of(sample(tmp_path / "other", [pool], seed=7))["galaxy_id"].to_pylist())
    assert names < larger
    assert len(other) == len(names)
    assert len(other & names) < 0.7 * len(names)


def positives_file(folder: Path) -> Path:
    with attempt(folder / "positives.json", "positives", "dark_halo_scope.catalogue.lenses", {}, []) as work:
        pq.write_table(pa.table({"nobs_z": [3, 4, None], "type": ["SER", "SER", "DEV"]}), work.prefix / "p.parquet")
        work.publish()
    return folder / "positives.json"


def test_positives_come_from_a_list_or_from_settings_and_not_from_both(spark, pool, tmp_path):
    listed = ["--positives", str(positives_file(tmp_path))]
    with pytest.raises(ConfigError, match="give one of them"):
        sample(tmp_path, [pool], *listed)
    with pytest.raises(ConfigError, match="give one of them"):
        sample(tmp_path, [pool], positives=None)
    path = sample(tmp_path, [pool], *listed, positives=None)
    facts = load_manifest(path).facts
    assert load_manifest(path).rows_out == facts["target"] == 20
    assert facts["positives_without_stratum"] == 1


@pytest.mark.parametrize("positives", [20, 21])
def test_a_pool_that_holds_a_galaxy_twice_is_refused(spark, pool, tmp_path, positives):
    """Whether the sample ends between the two or behind them."""
    doubled = pa.concat_tables([pool, pool])
    with pytest.raises(BadInputError, match="twice"):
        sample(tmp_path, [doubled], positives={"3-5": {"SER": positives}}, per_positive=1, n2_share=0.0)
    assert not (tmp_path / "negatives.json").exists()


def test_an_empty_pool_is_refused(spark, tmp_path):
    with pytest.raises(BadInputError, match="holds no negatives to sample"):
        sample(tmp_path, [])
