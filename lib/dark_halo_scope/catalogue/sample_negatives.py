"""A stratified sample of the negative pool: so many negatives for each positive of a bin of nobs_z and a type.

    negative_pool.json (and a list of positives) -> negatives.json, `negatives-{file}.parquet`

Which galaxies are sampled depends on their names and the seed alone; see `catalogue.stratified_sample`. Tasks read the
pool file by file: names once to count and once to rank the last of each stratum, then whole rows to take.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.census import failed, gate, share_gate
from dark_halo_scope.catalogue.negative_pool_config import NegativeSampleSettings
from dark_halo_scope.catalogue.negative_rows import N1, N2, POOL_SCHEMA, nobs_z_bins
from dark_halo_scope.catalogue.parent import brick_order, table_bytes
from dark_halo_scope.catalogue.stratified_sample import (
    BUCKETS,
    Boundary,
    Group,
    Stratum,
    StratumPlan,
    boundary,
    buckets_of,
    plan_strata,
    sampling_hash,
)
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.manifest import (
    QUARANTINE_PREFIX,
    Attempt,
    Manifest,
    ObjectEntry,
    attempt,
    load_manifest,
    object_list,
    verified_path,
    verified_paths,
    write_object,
)
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.catalogue.sample_negatives"
KIND = "negatives"

SAMPLING_VERSION = "dark_halo_scope 1"
"""Raised when the same pool, positives and settings would give another sample."""

SAMPLE_SCHEMA = pa.schema(
    [
        *POOL_SCHEMA,
        pa.field("sampling_prob", pa.float64(), nullable=False),
        pa.field("sampling_timestamp", pa.string()),
        pa.field("sampling_version", pa.string(), nullable=False),
    ]
)
"""Columns of the pool and, by the earlier pipeline's names, how a row was sampled.

sampling_prob is the share of its stratum and pool (N1 or N2) that was taken: 1 / sampling_prob weights a rate back to
the pool, save strata and pools of which nothing was taken: `covered_share` of negatives.json says how much of it has
rows that stand for it. sampling_timestamp is null; the manifest's provenance has it.
"""

_KEYS = ("brickname", "objid", "nobs_z_bin", "type_bin", "pool")
_ENCODED = ("brickname", "nobs_z_bin", "type_bin", "pool")
_GROUP = ("nobs_z_bin", "type_bin", "pool")
# Two thirds of reading a row is its texts, of which few differ. Names of galaxies all do.
_REPEATED = [field.name for field in POOL_SCHEMA if pa.types.is_string(field.type) and field.name != "galaxy_id"]
_READ_ROWS = 100_000
# A hundred thousand names are hashed in 10 ms, and a task takes longer to start.
_FILES_PER_TASK = 8


def count_positives(table: pa.Table) -> tuple[dict[Stratum, int], int]:
    """Positives in each stratum, and how many have none.

    Args:
        table: columns nobs_z and type; a positive without either, or without exposure in z, is in no stratum.
    """
    known = table.select(["nobs_z", "type"]).drop_null()
    bins = nobs_z_bins(known["nobs_z"].to_numpy())
    counts = Counter(zip(bins.tolist(), (str(kind).strip() for kind in known["type"].to_pylist()), strict=True))
    found = {stratum: count for stratum, count in counts.items() if stratum[0]}
    return found, table.num_rows - sum(found.values())


def fixed_positives(settings: NegativeSampleSettings) -> dict[Stratum, int]:
    """Numbers of positives that the settings give in place of a list."""
    every = settings.positives or {}
    return {(name, kind): count for name, types in every.items() for kind, count in types.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `sample_negatives`."""
    parser = argument_parser("Sample negatives for each positive of the same stratum.")
    add_arguments(parser)
    parser.add_argument("--pool", type=Path, required=True, help="negative_pool.json")
    parser.add_argument(
        "--positives", type=Path, nargs="?", help="manifest of positives with nobs_z and type, in place of settings"
    )
    parser.add_argument("--output", type=Path, required=True, help="negatives.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, NegativeSampleSettings)
    if (args.positives is None) == (settings.positives is None):
        raise ConfigError(
            "The number of positives in each stratum comes either from --positives or from the setting `positives`; "
            "give one of them."
        )
    pool = load_manifest(args.pool, "negative_pool")
    inputs = [path for path in (args.pool, args.positives) if path is not None]
    with (
        attempt(args.output, KIND, MODULE, settings, inputs, args.data_root) as work,
        spark_session(args.spark_master, "sample_negatives") as spark,
    ):
        positives, without = fixed_positives(settings), 0
        if args.positives is not None:
            table = pa.concat_tables(
                pq.read_table(path, columns=["nobs_z", "type"])
                for path in verified_paths(load_manifest(args.positives))
            )
            positives, without = count_positives(table)
        _sample(spark, pool, positives, without, settings, work)


def _sample(
    spark: "SparkSession",
    pool: Manifest,
    positives: Mapping[Stratum, int],
    without_stratum: int,
    settings: NegativeSampleSettings,
    work: Attempt,
) -> None:
    names = [
        entry.name
        for entry in object_list(pool)
        if entry.name.endswith(".parquet") and not entry.name.startswith(QUARANTINE_PREFIX)
    ]
    if not names:
        raise BadInputError(f"{pool.uri} holds no negatives to sample; look at the cuts of the pool.")
    histograms: dict[Group, NDArray[np.int64]] = {}
    count = partial(_count_file, pool, settings.seed)
    for part in collect(spark, names, count, "Counting negatives (files)", _FILES_PER_TASK):
        for group, histogram in part.items():
            histograms[group] = histograms.get(group, 0) + histogram
    plans = plan_strata(
        positives,
        {group: int(histogram.sum()) for group, histogram in histograms.items()},
        settings.per_positive,
        settings.n2_share,
    )
    take = {(*plan.stratum, name): count for plan in plans for name, count in plan.taken.items() if count}
    ends = {group: boundary(histograms[group], count) for group, count in take.items()}
    shares = {group: count / int(histograms[group].sum()) for group, count in take.items()}
    rank = partial(_last_of_file, pool, settings.seed, ends)
    ranked = collect(spark, names, rank, "Ranking the last of each stratum (files)", _FILES_PER_TASK)
    last = [item for part in ranked for item in part]
    wanted = sum(take.values())
    # A file is written from memory by one task, so that a larger sample has more of them and not larger ones.
    files = max(1, ceil(wanted / settings.rows_per_file))
    choice = _Choice(settings.seed, ends, shares, frozenset(surplus_galaxies(last, ends)), files)
    written = _write(spark, pool, names, choice, work)
    rows_out = sum(rows for _, rows in written)
    if rows_out != wanted:
        raise BadInputError(
            f"{rows_out} negatives were written where {wanted} were planned: {pool.uri} holds a galaxy twice or has "
            "changed meanwhile; build the pool again."
        )
    work.publish(
        rows_out=rows_out,
        columns={field.name: str(field.type) for field in SAMPLE_SCHEMA},
        facts={
            "settings": settings.model_dump(mode="json"),
            "positives_without_stratum": without_stratum,
            "pool_rows": sum(int(histogram.sum()) for histogram in histograms.values()),
            **sample_facts(plans, settings),
        },
        objects=sorted((entry for entry, _ in written), key=lambda entry: entry.name),
    )
    for plan in plans:
        if plan.shortfall:
            logger.warning("%s %s: %d of %d negatives are missing", *plan.stratum, plan.shortfall, plan.target)
    logger.info("%d negatives of %d", rows_out, sum(plan.target for plan in plans))


def sample_facts(plans: Sequence[StratumPlan], settings: NegativeSampleSettings) -> dict[str, Any]:
    """What the manifest says of the sample: strata, totals, and the earlier pipeline's gates, which stop nothing."""
    wanted = [plan for plan in plans if plan.target]
    target, taken = sum(plan.target for plan in wanted), Counter[str]()
    for plan in wanted:
        taken.update(plan.taken)
    gates = {
        "count_ratio": gate(taken.total() / max(target, 1), target, settings.min_count_ratio),
        "n1_share": share_gate(taken[N1], taken.total(), settings.n1_range),
        "empty_strata": gate(sum(not sum(plan.taken.values()) for plan in wanted), len(wanted), 0, 0),
    }
    return {
        "strata": [plan.as_record() for plan in plans],
        "covered_share": covered_share(plans),
        "target": target,
        "taken": {N1: taken[N1], N2: taken[N2]},
        "n2_shortfall": sum(plan.n2_shortfall for plan in wanted),
        "shortfall": sum(plan.shortfall for plan in wanted),
        "gates": gates,
        "failed": failed(gates),
    }


def covered_share(plans: Sequence[StratumPlan]) -> float | None:
    """Share of the pool's galaxies whose stratum and pool (N1 or N2) have sampled rows; None where there are none.

    Weighted rates are of these galaxies: nothing stands for the others.
    """
    covered = sum(count for plan in plans for name, count in plan.pool.items() if plan.taken[name])
    every = sum(sum(plan.pool.values()) for plan in plans)
    return covered / every if every else None


@dataclass(frozen=True)
class _Choice:
    """Which rows are taken, and where they go.

    seed: of the hash.
    ends, shares: of each group that rows are taken of, where they end and what part of the group they are.
    surplus: galaxy_id of those in the last buckets that are beyond the end.
    files: that the sample is written to.
    """

    seed: int
    ends: Mapping[Group, Boundary]
    shares: Mapping[Group, float]
    surplus: frozenset[str]
    files: int


@dataclass(frozen=True)
class _Keys:
    """What the rows of a pool file are chosen by: (N,) number of each row's group, the groups, (N,) hashes."""

    group: NDArray[np.int64]
    groups: list[Group]
    hashes: NDArray[np.uint64]


def _read_keys(path: Path, seed: int) -> _Keys:
    table = pq.read_table(path, columns=list(_KEYS), read_dictionary=list(_ENCODED)).unify_dictionaries()
    encoded = {name: table[name].combine_chunks() for name in _ENCODED}
    group_N = np.zeros(table.num_rows, dtype=np.int64)
    values = [[str(value) for value in encoded[name].dictionary.to_pylist()] for name in _GROUP]
    for name, of_name in zip(_GROUP, values, strict=True):
        group_N = group_N * len(of_name) + encoded[name].indices.to_numpy()
    groups = [(bin_name, kind, pool) for bin_name in values[0] for kind in values[1] for pool in values[2]]
    return _Keys(group_N, groups, sampling_hash(encoded["brickname"], table["objid"].to_numpy(), seed))


def _count_file(pool: Manifest, seed: int, name: str) -> dict[Group, NDArray[np.int64]]:
    """(BUCKETS,) galaxies of each group by the part of the range that their hash is in; runs in a Spark task."""
    keys = _read_keys(verified_path(pool, name), seed)
    places = keys.group * BUCKETS + buckets_of(keys.hashes)
    counts = np.bincount(places, minlength=len(keys.groups) * BUCKETS).reshape(len(keys.groups), BUCKETS)
    return {group: row for group, row in zip(keys.groups, counts, strict=True) if row.any()}


def _last_of_file(pool: Manifest, seed: int, ends: Mapping[Group, Boundary], name: str) -> list[tuple[Group, int, str]]:
    """Group, hash and galaxy_id of the galaxies in their group's last bucket; runs in a Spark task."""
    path = verified_path(pool, name)
    keys = _read_keys(path, seed)
    places = np.flatnonzero(buckets_of(keys.hashes) == _last_buckets(keys, ends))
    names = pq.read_table(path, columns=["galaxy_id"])["galaxy_id"].take(pa.array(places)).to_pylist()
    groups = [keys.groups[place] for place in keys.group[places]]
    return list(zip(groups, keys.hashes[places].tolist(), names, strict=True))


def _last_buckets(keys: _Keys, ends: Mapping[Group, Boundary]) -> NDArray[np.int64]:
    """(N,) the last bucket of each row's group, -1 where nothing is taken of it."""
    return np.array([ends[group].bucket if group in ends else -1 for group in keys.groups])[keys.group]


def _take_file(pool: Manifest, choice: _Choice, name: str) -> Iterator[tuple[int, bytes]]:
    """Rows of a pool file up to the last bucket of their group, but for the surplus; runs in a Spark task.

    With the number of the file that they go to, and in Arrow's own bytes, in which Spark has nothing to take apart.
    """
    path = verified_path(pool, name)
    keys = _read_keys(path, choice.seed)
    share_G = np.array([choice.shares.get(group, 0.0) for group in keys.groups])
    taken = np.flatnonzero(buckets_of(keys.hashes) <= _last_buckets(keys, choice.ends))
    first, left_out = 0, pa.array(sorted(choice.surplus), pa.string())
    reader = pq.ParquetFile(path, read_dictionary=_REPEATED)
    for batch in reader.iter_batches(_READ_ROWS, columns=POOL_SCHEMA.names):
        here = taken[(taken >= first) & (taken < first + batch.num_rows)]
        rows = pa.Table.from_batches([batch]).take(pa.array(here - first))
        first += batch.num_rows
        kept = pc.invert(pc.is_in(rows["galaxy_id"], left_out))
        rows, group = rows.filter(kept), keys.group[here[kept.to_numpy()]]
        columns = [rows[name].cast(field.type) for name, field in zip(POOL_SCHEMA.names, POOL_SCHEMA, strict=True)]
        sampled = pa.table([*columns, pa.array(share_G[group])], names=[*POOL_SCHEMA.names, "sampling_prob"])
        file = pc.floor(pc.multiply(brick_order(sampled["brickname"]), float(choice.files))).cast(pa.int32()).to_numpy()
        for number in np.unique(file).tolist():
            part = sampled.take(pa.array(np.flatnonzero(file == number)))
            yield number, _as_bytes(part)


def _as_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _write(
    spark: "SparkSession", pool: Manifest, names: Sequence[str], choice: _Choice, work: Attempt
) -> list[tuple[ObjectEntry, int]]:
    """Write the sample; its files and how many rows each has."""
    target = work.target.uri
    files: Any = spark.sparkContext.parallelize(names, ceil(len(names) / _FILES_PER_TASK))
    taken = files.flatMap(partial(_take_file, pool, choice))
    # A file is a partition: the number of one is that of the other.
    written: list[tuple[ObjectEntry, int]] = (
        taken.partitionBy(choice.files, int).mapPartitions(partial(_write_file, target)).collect()
    )
    return written


def surplus_galaxies(last: Iterable[tuple[Group, int, str]], ends: Mapping[Group, Boundary]) -> list[str]:
    """Galaxies of the last buckets that are beyond the end of their group, sorted by name.

    Args:
        last: of every galaxy in its group's last bucket the group, the hash and the galaxy_id.
    """
    by_group: dict[Group, list[tuple[int, str]]] = {}
    for group, number, name in last:
        by_group.setdefault(group, []).append((number, name))
    return sorted(name for group, found in by_group.items() for _, name in sorted(found)[ends[group].within :])


def _write_file(target: str, parts: Iterable[tuple[int, bytes]]) -> list[tuple[ObjectEntry, int]]:
    """Write one output file, if it has rows; runs in a Spark task."""
    numbered = list(parts)
    if not numbered:
        return []
    table = pa.concat_tables(pa.ipc.open_stream(rows).read_all() for _, rows in numbered)
    table = table.sort_by([("brickname", "ascending"), ("objid", "ascending")])
    names = table["galaxy_id"]
    if pc.count_distinct(names).as_py() < len(names):
        # A brick is in one file, and with it both rows of a galaxy.
        raise BadInputError("The pool of negatives holds a galaxy twice; build it again.")
    table = table.append_column("sampling_timestamp", pa.nulls(len(table), pa.string()))
    table = table.append_column("sampling_version", pa.array([SAMPLING_VERSION] * len(table), pa.string()))
    name = f"negatives-{numbered[0][0]:04d}.parquet"
    return [(write_object(target, name, table_bytes(table.cast(SAMPLE_SCHEMA))), len(table))]


if __name__ == "__main__":
    run(main)
