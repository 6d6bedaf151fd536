"""What stored stamps there are: one row per stamp that is taken over, its place, its cell and its split.

    files below `stored.uri` -> manifest.json, `manifest-{file}-{part}.parquet`, `files.json`

Nothing of the stored data is copied, and no stamp is read. Cell and split are the position's own: the stored split
(of regions, or moved by task) is kept as `stored_split` and counted where it differs. A stamp that came in by several
selection sets or replicates (of a control: the same pixels) is taken once. Rows are written in the order in which they
lie in their file, so that whoever reads the stamps reads each file once.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.splits import SPLITS
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Attempt, ObjectEntry, attempt, write_object
from dark_halo_scope.injection.stored import (
    FILES,
    INVENTORY_SCHEMA,
    UNIDENTIFIED,
    FileReport,
    StoredFile,
    describe_file,
    inventory,
    stored_files,
)
from dark_halo_scope.injection.stored_config import StoredSettings
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.bricks import read_blacklist

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MODULE = "dark_halo_scope.injection.list_stored"

# What the manifest says of each row.
COLUMNS = (
    *("task_id", "brickname", "ra", "dec", "healpix_128", "split", "stored_split", "config_id", "replicate"),
    *("is_control", "cutout_ok", "file", "row_group", "row"),
)
_DUPLICATE = "duplicate"
_ROWS_PER_OBJECT = 50_000
_WRITTEN = "name string, size long, sha256 string, rows long"

_logger = logging.getLogger(__name__)


def list_stored(spark: "SparkSession", settings: StoredSettings, work: Attempt) -> None:
    """Make and publish the manifest.

    Raises:
        BadInputError: a file is not of the variant, too many rows have no identity, or none is left.
    """
    files = stored_files(settings.uri, settings.require_success)
    reports = _described(spark, files, settings)
    for difference, count in sorted(_differences(reports).items()):
        _logger.warning("%d of %d files: %s %s", count, len(files), settings.variant, difference)
    left_out = frozenset((*settings.excluded_bricks, *read_blacklist(settings.brick_blacklist)))
    rows = _read(spark, files, settings, left_out)
    from pyspark import StorageLevel

    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    counts = rows.groupBy("reason", "stored_split", "original_split", "split", "single_precision").count().collect()
    total = sum(report.rows for report in reports)
    reasons = _counted(counts, "reason")
    check_identified(reasons, total, settings)
    kept = _once(rows.filter("reason is null"))
    moves = kept.groupBy("stored_split", "split", "is_control", "cutout_ok").count().collect()
    target = work.target.uri
    ordered = kept.repartition(len(files), "file").sortWithinPartitions("file", "row_group", "row")
    written = ordered.select(*COLUMNS).mapInArrow(partial(_write, target=target), _WRITTEN).collect()
    rows.unpersist()
    rows_out = sum(item.rows for item in written)
    if not rows_out:
        raise BadInputError(f"{settings.uri} holds no stamp to take over: {dict(reasons)}.")
    reasons[_DUPLICATE] = reasons.pop(None, 0) - rows_out
    listing = json.dumps([file._asdict() for file in files], indent=0).encode()
    entries = [
        write_object(target, FILES, listing),
        *(ObjectEntry(name=item.name, size=item.size, sha256=item.sha256) for item in written),
    ]
    facts = {
        "stored": {"uri": settings.uri, "variant": settings.variant, "files": len(files), "rows": total},
        "schema_differences": dict(sorted(_differences(reports).items())),
        "left_out": {reason: count for reason, count in sorted(reasons.items()) if count},
        "positives": sum(row["count"] for row in moves if row["is_control"] != 1 and row["cutout_ok"] == 1),
        "splits": {split: sum(row["count"] for row in moves if row["split"] == split) for split in SPLITS},
        "stored_splits": {
            str(split): count for split, count in sorted(_counted(counts, "stored_split").items(), key=str)
        },
        "moved": _moved(moves),
        "relabelled_rows": sum(
            row["count"] for row in counts if row["original_split"] not in (None, row["stored_split"])
        ),
        # A float64 column filled from float32: positions off by up to 0.1 arcsec, as in the earlier crossmatch.
        "single_precision_positions": _counted(counts, "single_precision")[True],
    }
    if facts["single_precision_positions"] > total / 2:
        _logger.warning("Positions of %s hold no more than single precision (0.1 arcsec).", settings.uri)
    work.publish(
        rows_in=total,
        rows_out=rows_out,
        rows_quarantined=total - rows_out,
        columns={name: str(INVENTORY_SCHEMA.field(name).type) for name in COLUMNS},
        facts=facts,
        objects=sorted(entries, key=lambda entry: entry.name),
    )
    _logger.info("%d of %d stored stamps are taken over; left out: %s", rows_out, total, facts["left_out"])


def _described(spark: "SparkSession", files: Sequence[StoredFile], settings: StoredSettings) -> list[FileReport]:
    describe = partial(describe_file, variant=settings.variant)
    reports: list[FileReport] = spark.sparkContext.parallelize(files, len(files)).map(describe).collect()
    return reports


def _differences(reports: Iterable[FileReport]) -> Counter[str]:
    return Counter(difference for report in reports for difference in report.differences)


def _read(
    spark: "SparkSession", files: Sequence[StoredFile], settings: StoredSettings, left_out: frozenset[str]
) -> "DataFrame":
    """`INVENTORY_SCHEMA` of all files, each read by a task of its own."""
    from pyspark.sql.pandas.types import from_arrow_schema

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                for table in inventory(files[number], number, settings, left_out):
                    yield from table.to_batches()

    numbers = spark.createDataFrame([(i,) for i in range(len(files))], "number int").repartition(len(files))
    return numbers.mapInArrow(read, from_arrow_schema(INVENTORY_SCHEMA))


def _once(rows: "DataFrame") -> "DataFrame":
    """One row per stamp: of the same brick, position, configuration and replicate the first, a cutout that succeeded
    before one that failed. A control has neither configuration nor replicate: its pixels follow from the position.

    Spark sorts each partition of the key with spilling, so that memory does not grow with the rows.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    control = sql.col("is_control") == 1
    configuration = sql.when(control, "CONTROL").otherwise(sql.col("config_id"))
    replicate = sql.when(control, 0).otherwise(sql.col("replicate"))
    order = ("selection_set_id", "task_id", "file", "row_group", "row")
    window = Window.partitionBy("brickname", "ra", "dec", configuration, replicate).orderBy(
        sql.col("cutout_ok").desc(), *order
    )
    return rows.withColumn("rank", sql.row_number().over(window)).filter("rank = 1").drop("rank")


def check_identified(reasons: Mapping[str | None, int], total: int, settings: StoredSettings) -> None:
    """Rows without identity or place are few.

    Args:
        reasons: to leave a row out -> number of rows; None: rows to keep.

    Raises:
        BadInputError: more than `max_unidentified_fraction`.
    """
    unidentified = {reason: reasons[reason] for reason in UNIDENTIFIED if reasons.get(reason)}
    if sum(unidentified.values()) > settings.max_unidentified_fraction * total:
        raise BadInputError(
            f"{sum(unidentified.values())} of {total} rows of {settings.uri} cannot be told apart or placed "
            f"({unidentified}), more than {settings.max_unidentified_fraction:.2%}; correct the data or their variant."
        )


def _counted(rows: Sequence[Any], name: str) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for row in rows:
        found[row[name]] += row["count"]
    return found


def _moved(rows: Sequence[Any]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in rows:
        if row["stored_split"] != row["split"]:
            found[f"{row['stored_split']} -> {row['split']}"] += row["count"]
    return dict(sorted(found.items()))


def _write(batches: Iterable[pa.RecordBatch], target: str) -> Iterator[pa.RecordBatch]:
    """Write rows as they come, in order of file, as objects of one file and bounded length; runs in a Spark task."""
    schema = pa.schema([INVENTORY_SCHEMA.field(name) for name in COLUMNS])
    parts: Counter[int] = Counter()
    held: list[pa.Table] = []

    def flush() -> pa.RecordBatch:
        rows = pa.concat_tables(held)
        held.clear()
        number = rows["file"][0].as_py()
        buffer = BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        entry = write_object(target, f"manifest-{number:05d}-{parts[number]:03d}.parquet", buffer.getvalue())
        parts[number] += 1
        return pa.RecordBatch.from_pylist([{**entry.model_dump(), "rows": len(rows)}])

    for batch in batches:
        table = pa.Table.from_batches([batch]).cast(schema)
        while len(table):
            number = table["file"][0].as_py()
            if held and held[0]["file"][0].as_py() != number:
                yield flush()
            room = _ROWS_PER_OBJECT - sum(len(rows) for rows in held)
            taken = min(room, int(pc.sum(pc.equal(table["file"], number)).as_py()))
            held.append(table.slice(0, taken))
            table = table.slice(taken)
            if taken == room:
                yield flush()
    if held:
        yield flush()


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `list_stored_stamps`."""
    parser = argument_parser("List the stamps of a dataset that exists already, without reading them.")
    add_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="manifest.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, StoredSettings)
    with (
        attempt(args.output, "manifest", MODULE, settings, [], args.data_root) as work,
        spark_session(args.spark_master, "list_stored_stamps") as spark,
    ):
        list_stored(spark, settings, work)


if __name__ == "__main__":
    run(main)
