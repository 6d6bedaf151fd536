"""The pool of negatives of a survey: galaxies of its sweeps that are no lenses, for a finder trained on real images.

    survey.json, lenses.json -> negative_pool.json, `negatives-{file}.parquet`, `quarantine/negatives-{file}.parquet`

One Spark task reads one sweep file, some rows at a time. Rows then meet by brick: which file a row is in, and its place
there, depend on the rows alone, not on cores, partitions or the order of files.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dark_halo_scope.catalogue.lens_positions import LensPositions, read_lens_positions
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolSettings
from dark_halo_scope.catalogue.negative_rows import (
    POOL_SCHEMA,
    POOL_SWEEP_COLUMNS,
    QUARANTINE_COLUMNS,
    UNITS,
    PoolPart,
    select_negatives,
)
from dark_halo_scope.catalogue.parent import DUPLICATE, brick_order, local_file, table_bytes, with_files
from dark_halo_scope.catalogue.splits import leaking_pairs
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import Attempt, ObjectEntry, attempt, load_manifest, write_object
from dark_halo_scope.core.quarantine import DIRECTORY, REASON, check_fraction, split_rows
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.sweeps import PART_ROWS, read_sweep

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.catalogue.negative_pool"
KIND = "negative_pool"

ACROSS = "within reach of an object of another split"

_ROWS = pa.schema([field.with_nullable(True) for field in POOL_SCHEMA]).append(pa.field(REASON, pa.string()))
_CARRIED = pa.schema(
    [
        *_ROWS,
        pa.field("near_border", pa.bool_()),
        pa.field("counts", pa.string()),
        pa.field("brick_order", pa.float64()),
    ]
)
_ORDER = ("brickname", "objid", "ra", "dec", "sweep_file", "row_index")
_COUNTED = ("pool", "split", "type_bin", "nobs_z_bin", "confuser_category")
_WRITTEN = "name string, size long, sha256 string, rows long, quarantined long, counts string"


def select_file(
    sweep: Path,
    name: str,
    releases: Collection[str],
    lenses: LensPositions,
    settings: NegativePoolSettings,
    part_rows: int = PART_ROWS,
) -> Iterator[PoolPart]:
    """`select_negatives` of a sweep file, `part_rows` rows at a time: memory does not grow with the file.

    Args:
        sweep, releases: see `read_sweep`.
        name: what the rows call the file.
    """
    first = 0
    for rows in read_sweep(sweep, POOL_SWEEP_COLUMNS, None, releases, part_rows):
        yield select_negatives(rows, name, first, lenses, settings)
        first += rows.num_rows


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `build_negative_pool`."""
    parser = argument_parser("Select the pool of negatives from a survey's sweeps.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json, around which nothing is a negative")
    parser.add_argument("--output", type=Path, required=True, help="negative_pool.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, NegativePoolSettings)
    survey = load_survey(args.survey)
    lenses = read_lens_positions(load_manifest(args.lenses, "lenses"))
    with (
        attempt(args.output, KIND, MODULE, settings, [args.survey, args.lenses], args.data_root) as work,
        spark_session(args.spark_master, "build_negative_pool") as spark,
    ):
        _build(spark, survey, lenses, settings, work)


def _build(
    spark: "SparkSession",
    survey: SurveyDescription,
    lenses: LensPositions,
    settings: NegativePoolSettings,
    work: Attempt,
) -> None:
    from pyspark import StorageLevel
    from pyspark.sql.pandas.types import from_arrow_schema

    sweeps = [sweep for sweep, _ in survey.sweep_pairs()]
    logger.info("Reading %d sweep files, %d lenses", len(sweeps), len(lenses.ra))

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                with local_file(survey, sweeps[number]) as path:
                    assert path is not None
                    name = sweeps[number].rpartition("/")[2]
                    for part in select_file(path, name, survey.releases, lenses, settings):
                        yield from _carried(part).to_batches(max_chunksize=10_000)

    numbers = spark.createDataFrame([(i,) for i in range(len(sweeps))], "number int").repartition(len(sweeps))
    carried = numbers.mapInArrow(read, from_arrow_schema(_CARRIED)).persist(StorageLevel.MEMORY_AND_DISK)
    counts: Counter[str] = Counter()
    for row in carried.filter("counts is not null").select("counts").collect():
        counts.update(json.loads(row.counts))
    leaking = _leaking_ids(carried, settings.same_object_arcsec)
    target = work.target.uri

    def write(frame: "pd.DataFrame") -> "pd.DataFrame":
        return _write_file(frame, target, leaking)

    rows = with_files(carried.filter("counts is null"), settings.rows_per_file)
    written = rows.groupBy("file").applyInPandas(write, _WRITTEN).collect()
    carried.unpersist()
    rows_out, quarantined = sum(w.rows for w in written), sum(w.quarantined for w in written)
    check_fraction(counts["read"], quarantined, settings.max_quarantined, f"The selection of {work.output}")
    found: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for item in written:
        for name, values in json.loads(item.counts).items():
            found[name].update(values)
    work.publish(
        rows_in=counts["read"] - counts["outside_pool"] - counts["near_lens"],
        rows_out=rows_out,
        rows_quarantined=quarantined,
        columns={field.name: str(field.type) for field in POOL_SCHEMA},
        facts={
            "settings": settings.model_dump(mode="json"),
            "rows_read": counts["read"],
            "no_negatives": {name: counts[name] for name in ("outside_pool", "near_lens")},
            "units": UNITS,
            "counts": {name: dict(sorted(values.items())) for name, values in found.items()},
        },
        objects=sorted((ObjectEntry(name=w.name, size=w.size, sha256=w.sha256) for w in written), key=lambda e: e.name),
    )
    logger.info("%d negatives of %d rows, %d quarantined", rows_out, counts["read"], quarantined)


def _carried(part: PoolPart) -> pa.Table:
    """Rows between the Spark stages: negatives, bad rows, and one row with the counts."""
    parts = [
        part.rows.append_column("near_border", pa.array(part.near_border)),
        part.bad,
        pa.table({"counts": pa.array([json.dumps(part.counts, sort_keys=True)], pa.string())}),
    ]
    table = pa.concat_tables(
        pa.table(
            [
                one[field.name].cast(field.type) if field.name in one.column_names else pa.nulls(len(one), field.type)
                for field in _CARRIED
            ],
            schema=_CARRIED,
        )
        for one in parts
    )
    place = table.schema.get_field_index("brick_order")
    return table.set_column(place, "brick_order", brick_order(table["brickname"]))


def _leaking_ids(carried: "DataFrame", radius: float) -> frozenset[str]:
    """Galaxies with a galaxy of another split within `radius` arcsec, whatever file either is in."""
    near = carried.filter("near_border").select("galaxy_id", "ra", "dec", "split").collect()
    pairs_P2 = leaking_pairs(
        np.array([row.ra for row in near], dtype=np.float64),
        np.array([row.dec for row in near], dtype=np.float64),
        np.array([row.split for row in near], dtype=str),
        radius,
    )
    return frozenset(near[i].galaxy_id for i in np.unique(pairs_P2))


def _write_file(frame: "pd.DataFrame", target: str, leaking: frozenset[str]) -> "pd.DataFrame":
    """Write one output file, and one of quarantined rows where there are any; runs in a Spark task."""
    import pandas as pd

    number = int(frame["file"].iloc[0])
    table = pa.Table.from_pandas(frame, schema=_ROWS, preserve_index=False).replace_schema_metadata(None)
    # By identity, then by place, so that the first of two rows with one identifier is the same in every run.
    table = table.sort_by([(name, "ascending") for name in _ORDER])
    fine, bad = split_rows(table.drop_columns([REASON]), table[REASON].to_pylist())
    fine, duplicates = split_rows(fine, _duplicate_reasons(fine["galaxy_id"].to_pylist()))
    fine, across = split_rows(fine, [ACROSS if name in leaking else None for name in fine["galaxy_id"].to_pylist()])
    quarantined = pa.concat_tables([bad, duplicates, across]).select(QUARANTINE_COLUMNS)
    records = []
    for rows, name, kept in (
        (fine.cast(POOL_SCHEMA), f"negatives-{number:04d}.parquet", True),
        (quarantined, f"{DIRECTORY}/negatives-{number:04d}.parquet", False),
    ):
        if len(rows):
            entry = write_object(target, name, table_bytes(rows))
            counts = {column: _value_counts(rows[column]) for column in _COUNTED} if kept else {}
            number_of = {"rows": len(rows) if kept else 0, "quarantined": 0 if kept else len(rows)}
            records.append({**entry.model_dump(), **number_of, "counts": json.dumps(counts, sort_keys=True)})
    return pd.DataFrame.from_records(records)


def _duplicate_reasons(galaxy_ids: Sequence[str]) -> list[str | None]:
    """Why a row repeats an identifier that an earlier one has; None for first rows."""
    seen: set[str] = set()
    reasons: list[str | None] = []
    for name in galaxy_ids:
        reasons.append(f"{DUPLICATE} (galaxy_id = {name})" if name in seen else None)
        seen.add(name)
    return reasons


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column.drop_null()).to_pylist()}


if __name__ == "__main__":
    run(main)
