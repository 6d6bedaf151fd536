"""Confusers of a survey: galaxies of its sweeps that look like lenses and are none, by class.

    survey.json, lenses.json -> confusers.json, `confusers-{file}.parquet`

One Spark task reads one sweep file, some rows at a time; of the whole file it holds what a neighbour is judged by. Rows
then meet by brick: what is written depends on the rows alone, not on cores, partitions or the order of files.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.catalogue.config import ConfuserSettings
from dark_halo_scope.catalogue.confusers import (
    NEIGHBOUR_COLUMNS,
    RULES,
    Neighbours,
    confuser_classes,
    in_pool,
    neighbours,
)
from dark_halo_scope.catalogue.crossmatch import nearest
from dark_halo_scope.catalogue.lens_positions import read_lens_positions
from dark_halo_scope.catalogue.parent import (
    PARENT_SCHEMA,
    brick_order,
    duplicate_reasons,
    local_file,
    object_rows,
    table_bytes,
    with_files,
)
from dark_halo_scope.catalogue.selection import CHECKED_COLUMNS, SWEEP_COLUMNS, bad_row_reasons, is_fine, lrg_flags
from dark_halo_scope.catalogue.splits import SPLITS
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import Attempt, ObjectEntry, attempt, load_manifest, write_object
from dark_halo_scope.core.quarantine import check_fraction
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.sweeps import PART_ROWS, read_sweep

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.catalogue.select_confusers"
KIND = "confusers"

CONFUSER_SCHEMA = PARENT_SCHEMA.append(pa.field("confuser", pa.string(), nullable=False))
"""Columns of the parent sample, and the class."""

_ROWS = pa.schema([field.with_nullable(True) for field in CONFUSER_SCHEMA])
_CARRIED = _ROWS.append(pa.field("counts", pa.string())).append(pa.field("brick_order", pa.float64()))

# A neighbour must be a usable row.
_LOOKED_AT = tuple(dict.fromkeys([*NEIGHBOUR_COLUMNS, *CHECKED_COLUMNS]))

_WRITTEN = "name string, size long, sha256 string, counts string, duplicates long"

_ORDER = ("brickname", "objid", "release", "ra", "dec")


def select_confusers(
    sweep: pa.Table, around: Neighbours, lens_ra: NDArray, lens_dec: NDArray, settings: ConfuserSettings
) -> tuple[pa.Table, Counter[str]]:
    """Confusers among rows of one sweep.

    Args:
        sweep: columns `SWEEP_COLUMNS`, and Z_PHOT_MEDIAN, Z_PHOT_STD where there are photometric redshifts.
        around: neighbours in the whole sweep.
        lens_ra, lens_dec: (M,) float64 degrees of known and candidate lenses.
        settings: rules and the radius about lenses.

    Returns:
        `CONFUSER_SCHEMA`, rows in file order; and how many rows went where. Bad rows are no confusers.
    """
    every = {name: sweep[name].to_numpy(zero_copy_only=False) for name in SWEEP_COLUMNS}
    good = _good(every)
    columns = {name: values[good] for name, values in every.items()}
    rules = RULES[settings.preset]
    kind = confuser_classes(columns, rules, around)
    found = np.flatnonzero(kind != "")
    ra, dec = (columns[name][found] for name in ("RA", "DEC"))
    near = nearest(ra, dec, lens_ra, lens_dec, settings.lens_radius_arcsec)[0] >= 0
    counts = Counter(read=sweep.num_rows, bad=sweep.num_rows - len(good), near_lens=int(near.sum()))
    counts["outside_pool"] = int(np.sum(~in_pool(columns, rules)))
    counts["no_confuser"] = len(good) - counts["outside_pool"] - len(found)
    kept = found[~near]
    flags = lrg_flags({name: values[kept] for name, values in columns.items()})
    rows = object_rows(sweep, every, good[kept], flags, settings.split_seed)
    rows = rows.append_column(CONFUSER_SCHEMA.field("confuser"), pa.array(kind[kept], pa.string()))
    return rows, counts


def select_file(
    sweep: Path,
    photoz: Path | None,
    releases: Collection[str],
    lens_ra: NDArray,
    lens_dec: NDArray,
    settings: ConfuserSettings,
    part_rows: int = PART_ROWS,
) -> Iterator[tuple[pa.Table, Counter[str]]]:
    """`select_confusers` of a sweep file, `part_rows` rows at a time, after a first reading for the neighbours.

    Bad rows are no neighbours.

    Args:
        sweep, photoz, releases: see `read_sweep`.
    """

    def good_rows() -> Iterator[dict[str, NDArray]]:
        for rows in read_sweep(sweep, _LOOKED_AT, None, releases, part_rows):
            columns = {name: rows[name].to_numpy(zero_copy_only=False) for name in _LOOKED_AT}
            good = _good(columns)
            yield {name: values[good] for name, values in columns.items()}

    around = neighbours(good_rows(), RULES[settings.preset])
    for rows in read_sweep(sweep, SWEEP_COLUMNS, photoz, releases, part_rows):
        yield select_confusers(rows, around, lens_ra, lens_dec, settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `select_confusers`."""
    parser = argument_parser("Select galaxies of a survey's sweeps that look like lenses and are none.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json, whose lenses are left out")
    parser.add_argument("--output", type=Path, required=True, help="confusers.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, ConfuserSettings)
    survey = load_survey(args.survey)
    with (
        attempt(args.output, KIND, MODULE, settings, [args.survey, args.lenses], args.data_root) as work,
        spark_session(args.spark_master, "select_confusers") as spark,
    ):
        _select(spark, survey, args.lenses, settings, work)


def _select(
    spark: "SparkSession", survey: SurveyDescription, lenses: Path, settings: ConfuserSettings, work: Attempt
) -> None:
    from pyspark import StorageLevel
    from pyspark.sql.pandas.types import from_arrow_schema

    known = read_lens_positions(load_manifest(lenses, "lenses"))
    sweeps = survey.sweep_pairs()
    logger.info("Reading %d sweep files, %d lenses", len(sweeps), len(known.ra))

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                sweep, photoz = sweeps[number]
                with local_file(survey, sweep) as sweep_path, local_file(survey, photoz) as photoz_path:
                    assert sweep_path is not None
                    for rows, here in select_file(
                        sweep_path, photoz_path, survey.releases, known.ra, known.dec, settings
                    ):
                        yield from _carried(rows, here)

    numbers = spark.createDataFrame([(i,) for i in range(len(sweeps))], "number int").repartition(len(sweeps))
    carried = numbers.mapInArrow(read, from_arrow_schema(_CARRIED)).persist(StorageLevel.MEMORY_AND_DISK)
    counts: Counter[str] = Counter()
    for row in carried.filter("counts is not null").select("counts").collect():
        counts.update(json.loads(row.counts))
    check_fraction(counts["read"], counts["bad"], settings.max_bad, f"The selection of {work.output}")
    target = work.target.uri

    def write(frame: "pd.DataFrame") -> "pd.DataFrame":
        return _write_file(frame, target)

    rows = with_files(carried.filter("counts is null"), settings.rows_per_file)
    written = rows.groupBy("file").applyInPandas(write, _WRITTEN).collect()
    carried.unpersist()
    classes: dict[str, Counter[str]] = {name: Counter() for name in RULES[settings.preset].classes}
    for item in written:
        for name, splits in json.loads(item.counts).items():
            classes[name].update(splits)
    rows_out = sum(sum(splits.values()) for splits in classes.values())
    counts["duplicates"] = sum(item.duplicates for item in written)
    work.publish(
        rows_in=rows_out + counts["duplicates"],
        rows_out=rows_out,
        rows_quarantined=counts["duplicates"],
        columns={field.name: str(field.type) for field in CONFUSER_SCHEMA},
        facts={
            "preset": settings.preset,
            "rows": dict(sorted(counts.items())),
            "classes": {name: {split: splits[split] for split in SPLITS} for name, splits in classes.items()},
        },
        objects=sorted((ObjectEntry(name=w.name, size=w.size, sha256=w.sha256) for w in written), key=lambda e: e.name),
    )
    logger.info("%d confusers of %d rows", rows_out, counts["read"])


def _good(columns: dict[str, NDArray]) -> NDArray[np.int64]:
    """Numbers of the rows that are usable."""
    return np.flatnonzero(is_fine(bad_row_reasons(columns)))


def _carried(rows: pa.Table, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Rows between the Spark stages: confusers with the place of their brick, and one row with the counts."""
    order = brick_order(rows["brickname"])
    rows = rows.append_column("counts", pa.nulls(rows.num_rows, pa.string())).append_column("brick_order", order)
    yield from pa.table(rows.columns, schema=_CARRIED).to_batches(max_chunksize=10_000)
    one = {"counts": json.dumps(counts, sort_keys=True)}
    yield pa.RecordBatch.from_pylist([one], schema=_CARRIED)


def _write_file(frame: "pd.DataFrame", target: str) -> "pd.DataFrame":
    """Write one output file; runs in a Spark task."""
    import pandas as pd

    number = int(frame["file"].iloc[0])
    table = pa.Table.from_pandas(frame, schema=_ROWS, preserve_index=False).replace_schema_metadata(None)
    table = table.sort_by([(name, "ascending") for name in _ORDER])
    first = pa.array([reason is None for reason in duplicate_reasons(table)])
    rows = table.filter(first).select(CONFUSER_SCHEMA.names).cast(CONFUSER_SCHEMA)
    entry = write_object(target, f"confusers-{number:04d}.parquet", table_bytes(rows))
    counts: dict[str, Counter[str]] = {}
    for name, split in zip(rows["confuser"].to_pylist(), rows["split"].to_pylist(), strict=True):
        counts.setdefault(name, Counter())[split] += 1
    record = {**entry.model_dump(), "counts": json.dumps(counts, sort_keys=True)}
    return pd.DataFrame.from_records([{**record, "duplicates": table.num_rows - rows.num_rows}])


if __name__ == "__main__":
    run(main)
