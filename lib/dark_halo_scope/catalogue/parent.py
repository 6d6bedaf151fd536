"""The parent sample: luminous red galaxies of a survey's sweeps, each with its cell, split and photometric redshift.

One Spark task reads one sweep file, some rows at a time. Rows then meet by brick, so that what is written depends on
the rows alone: not on cores, partitions or the order of files.
"""

import contextlib
import json
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.config import ParentSettings
from dark_halo_scope.catalogue.crossmatch import nearest
from dark_halo_scope.catalogue.lens_positions import read_lens_positions
from dark_halo_scope.catalogue.selection import (
    FLAGS,
    MAG_BANDS,
    SWEEP_COLUMNS,
    bad_row_reasons,
    is_fine,
    lrg_flags,
    magnitudes,
    mark_bad,
)
from dark_halo_scope.catalogue.splits import (
    SPLITS,
    hash_fraction,
    healpix_cell,
    leaking_pairs,
    near_other_split,
    split_of_cells,
)
from dark_halo_scope.core import storage
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Attempt, ObjectEntry, attempt, load_manifest, write_object
from dark_halo_scope.core.quarantine import REASON, check_fraction, split_rows
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.bricks import read_blacklist, read_bricks
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.sweeps import PART_ROWS, PHOTO_Z, read_sweep
from dark_halo_scope.survey.units import depth_magnitude

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.catalogue.parent"

_F32, _F64, _I32, _I64 = pa.float32(), pa.float64(), pa.int32(), pa.int64()

_EDGES = ("RA1", "RA2", "DEC1", "DEC2")

_MAGNITUDES = ("gmag", "rmag", "zmag", "w1mag", "rz", "zw1")

PARENT_SCHEMA = pa.schema(
    [
        pa.field("brickname", pa.string(), nullable=False),
        pa.field("brickid", _I32, nullable=False),
        pa.field("objid", _I64, nullable=False),
        pa.field("release", _I32, nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("ra", _F64, nullable=False),
        pa.field("dec", _F64, nullable=False),
        *(pa.field(name, _F32) for name in _MAGNITUDES),
        *(pa.field(f"{name}_mw", _F32) for name in _MAGNITUDES),
        pa.field("gmag_valid", pa.bool_(), nullable=False),
        *(pa.field(f"flux_{band.lower()}", _F32, nullable=False) for band in MAG_BANDS),
        *(pa.field(name, pa.bool_(), nullable=False) for name in FLAGS),
        pa.field("maskbits", _I64, nullable=False),
        pa.field("ebv", _F32, nullable=False),
        *(pa.field(f"psfsize_{band}", _F32) for band in "grz"),
        *(pa.field(f"psfdepth_{band}", _F32) for band in "grz"),
        *(pa.field(f"nobs_{band}", _I32, nullable=False) for band in "grz"),
        *(pa.field(name, _F32, nullable=False) for name in ("shape_r", "shape_e1", "shape_e2")),
        pa.field("sersic", _F32),
        pa.field("z_phot", _F32),
        pa.field("z_phot_std", _F32),
        pa.field("healpix_128", _I64, nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Columns of the parent sample.

Magnitudes are AB and null where the flux is not positive; `_mw` ones are dereddened. psfsize (arcsec) and psfdepth
(5-sigma AB magnitude) are those at the object. z_phot is Z_PHOT_MEDIAN, null where there is none.
"""

_IDENTITY = ("release", "brickid", "objid")

# Between Spark stages a row also carries where it came from and what becomes of it.
_CARRIED = pa.schema(
    [
        *(field.with_nullable(True) for field in PARENT_SCHEMA),
        pa.field("sweep", pa.string()),
        pa.field("row", _I64),
        pa.field("near_border", pa.bool_()),
        pa.field(REASON, pa.string()),
        pa.field("counts", pa.string()),
        pa.field("brick_order", _F64),
    ]
)

DUPLICATE = "duplicate of an identifier"


@dataclass(frozen=True)
class Bricks:
    """What a row's brick says about it, ordered by name.

    Attributes:
        name: (K,) str, sorted.
        usable: (K,) whether the brick passes the cuts on extinction, seeing and depth.
        excluded: (K,) whether it is excluded or blacklisted by name.
        box: (K, 4) RA1, RA2, Dec1, Dec2 in degrees of the area that it owns.
    """

    name: NDArray[np.str_]
    usable: NDArray[np.bool_]
    excluded: NDArray[np.bool_]
    box: NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """Outcome of rows of a sweep: rows kept, rows quarantined with their reason, and how many went where."""

    rows: pa.Table
    row_numbers: NDArray[np.int64]
    quarantined: pa.Table
    quarantined_numbers: NDArray[np.int64]
    counts: dict[str, int]


def prepare_bricks(
    summary: pa.Table, boxes: pa.Table, settings: ParentSettings, blacklist: Sequence[str], where: str
) -> Bricks:
    """Apply the brick cuts to a release's bricks.

    Args:
        summary: the release's own table, EBV, PSFSIZE_R in arcsec and PSFDEPTH_R in magnitudes.
        boxes: table of all bricks with RA1, RA2, DEC1, DEC2 in degrees.
        settings, blacklist: cuts and names.
        where: the summary's file, for the error.

    Raises:
        BadInputError: a column is missing, or a brick has no box.
    """
    missing = [name for name in ("EBV", "PSFSIZE_R", "PSFDEPTH_R") if name not in summary.column_names]
    missing += [name for name in _EDGES if name not in boxes.column_names]
    if missing:
        raise BadInputError(
            f"{where} and the table of boxes lack the columns {', '.join(missing)}; give survey-bricks and the "
            "bricks table of the release and region."
        )
    name_K = _strings(summary["BRICKNAME"])
    order_K = np.argsort(name_K)
    name_K = name_K[order_K]
    ebv_K, psfsize_K, psfdepth_K = (
        np.asarray(summary[name].to_numpy(), dtype=np.float64)[order_K] for name in ("EBV", "PSFSIZE_R", "PSFDEPTH_R")
    )
    box_name_B = _strings(boxes["BRICKNAME"])
    order_B = np.argsort(box_name_B)
    place_K = np.minimum(np.searchsorted(box_name_B[order_B], name_K), max(len(order_B) - 1, 0))
    if len(name_K) and not (len(order_B) and (box_name_B[order_B][place_K] == name_K).all()):
        raise BadInputError(f"{where} has bricks that the table of boxes has not; give the two of one survey.")
    box_B4 = np.stack([np.asarray(boxes[name].to_numpy(), dtype=np.float64) for name in _EDGES], axis=1)
    with np.errstate(invalid="ignore"):
        usable_K = (ebv_K <= settings.max_ebv) & (psfsize_K > 0) & (psfsize_K <= settings.max_psfsize_r)
        usable_K &= psfdepth_K >= settings.min_psfdepth_r
    return Bricks(
        name=name_K,
        usable=usable_K,
        excluded=np.isin(name_K, [*settings.excluded_bricks, *blacklist]),
        box=box_B4[order_B][place_K] if len(name_K) else np.empty((0, 4)),
    )


def select_rows(
    sweep: pa.Table, bricks: Bricks, lens_ra: NDArray, lens_dec: NDArray, settings: ParentSettings, first: int = 0
) -> Selection:
    """Parents among rows of one sweep.

    Args:
        sweep: columns `SWEEP_COLUMNS`, and Z_PHOT_MEDIAN, Z_PHOT_STD where there are photometric redshifts.
        bricks: of the survey.
        lens_ra, lens_dec: (M,) float64 degrees of known lenses.
        first: number of the first of these rows in their file.

    Returns:
        rows in file order, and their numbers in the file. A bad row is quarantined whatever the cuts would have said of
        it.
    """
    columns = {name: sweep[name].to_numpy(zero_copy_only=False) for name in SWEEP_COLUMNS}
    reason_N = bad_row_reasons(columns)
    index_N = _brick_index(columns, bricks)
    mark_bad(reason_N, index_N < 0, "brick is not in the bricks table")
    box_N4 = bricks.box[np.maximum(index_N, 0)]
    ra_N, dec_N = columns["RA"], columns["DEC"]
    with np.errstate(invalid="ignore"):
        outside_N = (ra_N < box_N4[:, 0]) | (ra_N > box_N4[:, 1]) | (dec_N < box_N4[:, 2]) | (dec_N > box_N4[:, 3])
    mark_bad(reason_N, outside_N, "position lies outside its brick")
    good_N = is_fine(reason_N)
    bad_N = ~good_N

    good = {name: values[good_N] for name, values in columns.items()}
    flags = lrg_flags(good)
    steps = {
        # In this order; a row counts once, for the first that takes it.
        "excluded_brick": bricks.excluded[index_N[good_N]],
        "brick_quality": ~bricks.usable[index_N[good_N]],
        "not_selected": ~flags[f"is_{settings.lrg_mode}"],
    }
    counts = {"read": sweep.num_rows, "bad": int(bad_N.sum())}
    left_N = np.ones(int(good_N.sum()), dtype=bool)
    for name, cut_N in steps.items():
        counts[name] = int((left_N & cut_N).sum())
        left_N &= ~cut_N
    near_N = np.zeros_like(left_N)
    near_N[left_N] = (
        nearest(good["RA"][left_N], good["DEC"][left_N], lens_ra, lens_dec, settings.lens_radius_arcsec)[0] >= 0
    )
    counts["near_lens"] = int(near_N.sum())
    left_N &= ~near_N
    number_N = np.flatnonzero(good_N)[left_N]
    return Selection(
        rows=object_rows(
            sweep, columns, number_N, {name: flag[left_N] for name, flag in flags.items()}, settings.split_seed
        ),
        row_numbers=first + number_N,
        quarantined=_bad_rows(columns, np.flatnonzero(bad_N), reason_N[bad_N]),
        quarantined_numbers=first + np.flatnonzero(bad_N),
        counts=counts,
    )


def select_file(
    sweep: Path,
    photoz: Path | None,
    releases: Collection[str],
    bricks: Bricks,
    lens_ra: NDArray,
    lens_dec: NDArray,
    settings: ParentSettings,
    part_rows: int = PART_ROWS,
) -> Iterator[Selection]:
    """`select_rows` of a sweep file, `part_rows` rows at a time: memory does not grow with the file.

    Args:
        sweep, photoz, releases: see `read_sweep`.
    """
    first = 0
    for rows in read_sweep(sweep, SWEEP_COLUMNS, photoz, releases, part_rows):
        yield select_rows(rows, bricks, lens_ra, lens_dec, settings, first)
        first += rows.num_rows


def duplicate_reasons(table: pa.Table) -> list[str | None]:
    """Why a row repeats an identifier that an earlier row of the table has; None for first rows."""
    seen: set[tuple[Any, ...]] = set()
    reasons: list[str | None] = []
    for key in zip(*(table[name].to_pylist() for name in _IDENTITY), strict=True):
        reasons.append(f"{DUPLICATE} (RELEASE, BRICKID, OBJID = {', '.join(map(str, key))})" if key in seen else None)
        seen.add(key)
    return reasons


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `select_parent_sample`."""
    parser = argument_parser("Select the parent sample of luminous red galaxies from a survey's sweeps.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json, whose lenses are left out")
    parser.add_argument("--output", type=Path, required=True, help="parent.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, ParentSettings)
    survey = load_survey(args.survey)
    with (
        attempt(args.output, "parent", MODULE, settings, [args.survey, args.lenses], args.data_root) as work,
        spark_session(args.spark_master, "select_parent_sample") as spark,
    ):
        _select(spark, survey, args.lenses, settings, work)


def _select(
    spark: "SparkSession", survey: SurveyDescription, lenses: Path, settings: ParentSettings, work: Attempt
) -> None:
    from pyspark import StorageLevel
    from pyspark.sql.pandas.types import from_arrow_schema

    uris = survey.files
    bricks = prepare_bricks(
        read_bricks(survey.verified(uris.brick_summary)),
        read_bricks(survey.verified(uris.bricks)),
        settings,
        read_blacklist(settings.brick_blacklist),
        uris.brick_summary,
    )
    known = read_lens_positions(load_manifest(lenses, "lenses"))
    sweeps = survey.sweep_pairs()
    logger.info("Reading %d sweep files, %d bricks, %d lenses", len(sweeps), len(bricks.name), len(known.ra))

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                sweep, photoz = sweeps[number]
                with local_file(survey, sweep) as sweep_path, local_file(survey, photoz) as photoz_path:
                    assert sweep_path is not None
                    selections = select_file(
                        sweep_path, photoz_path, survey.releases, bricks, known.ra, known.dec, settings
                    )
                    for selection in selections:
                        yield from _carried(selection, sweep, settings).to_batches(max_chunksize=10_000)

    numbers = spark.createDataFrame([(i,) for i in range(len(sweeps))], "number int").repartition(len(sweeps))
    carried = numbers.mapInArrow(read, from_arrow_schema(_CARRIED)).persist(StorageLevel.MEMORY_AND_DISK)
    counts = _total([json.loads(row.counts) for row in carried.filter("counts is not null").select("counts").collect()])
    leaking = _leaking_identities(carried, settings.same_object_arcsec)
    target = work.target.uri

    def write(frame: "pd.DataFrame") -> "pd.DataFrame":
        return _write_file(frame, target, leaking)

    rows = with_files(carried.filter("counts is null"), settings.rows_per_file, settings.files)
    written = rows.groupBy("file").applyInPandas(write, _WRITTEN).collect()
    carried.unpersist()
    rows_out = {split: sum(w[split] for w in written) for split in SPLITS}
    rows_quarantined = sum(w.quarantined for w in written)
    check_fraction(counts["read"], rows_quarantined, settings.max_quarantined, f"The selection of {work.output}")
    not_parents = {name: counts[name] for name in ("excluded_brick", "brick_quality", "not_selected", "near_lens")}
    work.publish(
        rows_in=counts["read"] - sum(not_parents.values()),
        rows_out=sum(rows_out.values()),
        rows_quarantined=rows_quarantined,
        columns={field.name: str(field.type) for field in PARENT_SCHEMA},
        facts={
            "lrg_mode": settings.lrg_mode,
            "rows_read": counts["read"],
            "not_parents": not_parents,
            "splits": rows_out,
        },
        objects=sorted((ObjectEntry(name=w.name, size=w.size, sha256=w.sha256) for w in written), key=lambda e: e.name),
    )
    logger.info("%d parents of %d rows, %d quarantined", sum(rows_out.values()), counts["read"], rows_quarantined)


def with_files(rows: "DataFrame", rows_per_file: int, least: int = 1) -> "DataFrame":
    """Rows with the number of the output `file` that each goes to, by its `brick_order` (see there), which is dropped.

    One task writes a file from memory, so that a larger survey has more files and not larger ones.

    Args:
        rows: persisted, because they are counted first.
        rows_per_file: on average.
        least: number of files.
    """
    from pyspark.sql import functions as sql

    files = max(least, ceil(rows.count() / rows_per_file))
    return rows.withColumn("file", sql.floor(sql.col("brick_order") * files).cast("int")).drop("brick_order")


@contextlib.contextmanager
def local_file(survey: SurveyDescription, uri: str | None) -> Iterator[Path | None]:
    """A file of the survey on this machine; a remote one is fetched, and gone when the block ends.

    A thousand sweeps would fill the disk of a worker that kept them.
    """
    if uri is None:
        yield None
    elif survey.embedded or storage.is_local(uri):
        yield survey.verified(uri)
    else:
        with tempfile.TemporaryDirectory(prefix="dark_halo_scope-") as directory:
            path = Path(directory) / uri.rpartition("/")[2]
            storage.fetch(uri, path)
            yield path


def _strings(column: pa.ChunkedArray) -> NDArray[np.str_]:
    return np.array(column.to_pylist(), dtype=str)


def _brick_index(columns: Mapping[str, NDArray], bricks: Bricks) -> NDArray[np.int64]:
    """(N,) place of each row's brick in the table, -1 where it is not in it."""
    name_N = columns["BRICKNAME"].astype(str)
    if not len(bricks.name):
        return np.full(name_N.shape, -1)
    index_N = np.minimum(np.searchsorted(bricks.name, name_N), len(bricks.name) - 1)
    return np.where(bricks.name[index_N] == name_N, index_N, -1)


def object_rows(
    sweep: pa.Table,
    columns: Mapping[str, NDArray],
    number_N: NDArray[np.int64],
    flags: Mapping[str, NDArray[np.bool_]],
    split_seed: int,
) -> pa.Table:
    """Rows `number_N` of a sweep with the parent sample's columns; flags are of those rows already."""
    row = {name: values[number_N] for name, values in columns.items()}
    values: dict[str, Any] = {
        "brickname": row["BRICKNAME"],
        "type": np.char.strip(row["TYPE"].astype(str)),
        "ra": row["RA"],
        "dec": row["DEC"],
        "gmag_valid": row["FLUX_G"] > 0,
        "sersic": row["SERSIC"],
        **flags,
    }
    for name in ("brickid", "objid", "release", "maskbits", "ebv", "shape_r", "shape_e1", "shape_e2"):
        values[name] = row[name.upper()]
    for suffix, dereddened in (("", False), ("_mw", True)):
        mag = magnitudes(row, dereddened)
        for band in MAG_BANDS:
            values[f"{band.lower()}mag{suffix}"] = mag[band]
        values[f"rz{suffix}"], values[f"zw1{suffix}"] = mag["R"] - mag["Z"], mag["Z"] - mag["W1"]
    for band in MAG_BANDS:
        values[f"flux_{band.lower()}"] = row[f"FLUX_{band}"]
    for band in "grz":
        size_N = row[f"PSFSIZE_{band.upper()}"]
        values[f"psfsize_{band}"] = np.where(size_N > 0, size_N, np.nan)
        values[f"psfdepth_{band}"] = depth_magnitude(row[f"PSFDEPTH_{band.upper()}"])
        values[f"nobs_{band}"] = row[f"NOBS_{band.upper()}"]
    for name, source in zip(("z_phot", "z_phot_std"), PHOTO_Z, strict=True):
        has = source in sweep.column_names
        values[name] = sweep[source].take(pa.array(number_N)) if has else pa.nulls(len(number_N), _F32)
    cell_N = healpix_cell(row["RA"], row["DEC"]) if len(number_N) else np.empty(0, dtype=np.int64)
    values["healpix_128"] = cell_N
    values["split"] = split_of_cells(cell_N, split_seed)
    return pa.table([_column(values[field.name], field.type) for field in PARENT_SCHEMA], schema=PARENT_SCHEMA)


def _column(values: Any, dtype: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray | pa.Array):
        return values.cast(dtype)
    if pa.types.is_floating(dtype):
        return pa.array(values.astype(dtype.to_pandas_dtype()), dtype, from_pandas=True)  # NaN becomes null
    return pa.array(values, dtype) if pa.types.is_string(dtype) else pa.array(values).cast(dtype)


def _bad_rows(columns: Mapping[str, NDArray], number_N: NDArray[np.int64], reason_N: NDArray[np.object_]) -> pa.Table:
    """What can be said of rows that cannot be used."""
    return pa.table(
        {
            "brickname": pa.array(columns["BRICKNAME"][number_N], pa.string()),
            "brickid": pa.array(columns["BRICKID"][number_N]).cast(_I32),
            "objid": pa.array(columns["OBJID"][number_N]).cast(_I64),
            "release": pa.array(columns["RELEASE"][number_N]).cast(_I32),
            "ra": pa.array(columns["RA"][number_N], _F64),
            "dec": pa.array(columns["DEC"][number_N], _F64),
            REASON: pa.array(reason_N, pa.string()),
        }
    )


def _carried(selection: Selection, sweep: str, settings: ParentSettings) -> pa.Table:
    """Rows between the Spark stages: parents, bad rows, and one row with the counts of this part of the file."""
    kept, bad = selection.rows, selection.quarantined
    near_N = near_other_split(
        kept["ra"].to_numpy(), kept["dec"].to_numpy(), settings.same_object_arcsec, settings.split_seed
    )
    parts = [
        kept.append_column("row", pa.array(selection.row_numbers, _I64)).append_column("near_border", pa.array(near_N)),
        bad.append_column("row", pa.array(selection.quarantined_numbers, _I64)),
        pa.table({"counts": pa.array([json.dumps(selection.counts, sort_keys=True)], pa.string())}),
    ]
    table = pa.concat_tables([_with_schema(part, _CARRIED) for part in parts])
    table = table.set_column(
        table.schema.get_field_index("brick_order"), "brick_order", brick_order(table["brickname"])
    )
    return table.set_column(
        table.schema.get_field_index("sweep"), "sweep", pa.array([sweep] * table.num_rows, pa.string())
    )


def _with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with all columns of a schema, absent ones null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _leaking_identities(carried: "DataFrame", radius: float) -> frozenset[tuple[int, int, int]]:
    """Identifiers of rows with a row of another split within `radius` arcsec, whatever file either is in."""
    near = carried.filter("near_border").select(*_IDENTITY, "ra", "dec", "split").collect()
    pairs_P2 = leaking_pairs(
        np.array([row.ra for row in near], dtype=np.float64),
        np.array([row.dec for row in near], dtype=np.float64),
        np.array([row.split for row in near], dtype=str),
        radius,
    )
    return frozenset((near[i].release, near[i].brickid, near[i].objid) for i in np.unique(pairs_P2))


_WRITTEN = "name string, size long, sha256 string, train long, val long, test long, quarantined long"


def _write_file(frame: "pd.DataFrame", target: str, leaking: frozenset[tuple[int, int, int]]) -> "pd.DataFrame":
    """Write one output file, and one of quarantined rows where there are any; runs in a Spark task."""
    import pandas as pd

    number = int(frame["file"].tolist()[0])
    columns = _CARRIED.remove(_CARRIED.get_field_index("brick_order"))
    table = pa.Table.from_pandas(frame, schema=columns, preserve_index=False).replace_schema_metadata(None)
    # By identity, then by place, so that the first of two rows with one identifier is the same in every run.
    order = ("brickname", "objid", "release", "ra", "dec", "sweep", "row")
    table = table.sort_by([(name, "ascending") for name in order])
    fine, bad = split_rows(table.drop_columns([REASON]), table[REASON].to_pylist())
    fine, duplicates = split_rows(fine, duplicate_reasons(fine))
    across = [
        "within reach of an object of another split" if key in leaking else None
        for key in zip(*(fine[name].to_pylist() for name in _IDENTITY), strict=True)
    ]
    fine, on_both_sides = split_rows(fine, across)
    quarantined = pa.concat_tables([bad, duplicates, on_both_sides])
    records = []
    if len(fine):
        rows = fine.select(PARENT_SCHEMA.names).cast(PARENT_SCHEMA)
        entry = write_object(target, f"parent-{number:04d}.parquet", table_bytes(rows))
        in_split = {split: int(pc.sum(pc.equal(rows["split"], split)).as_py()) for split in SPLITS}
        records.append({**entry.model_dump(), **in_split, "quarantined": 0})
    if len(quarantined):
        rows = quarantined.select(["sweep", "row", *_IDENTITY, "brickname", "ra", "dec", REASON])
        entry = write_object(target, f"quarantine/parent-{number:04d}.parquet", table_bytes(rows))
        records.append({**entry.model_dump(), **dict.fromkeys(SPLITS, 0), "quarantined": len(rows)})
    return pd.DataFrame.from_records(records)


def brick_order(names: pa.ChunkedArray) -> pa.Array:
    """Place of each brick in [0, 1) by a hash of its name, null without one: data decide which file it is in."""
    return pa.array([None if name is None else hash_fraction(name) for name in names.to_pylist()], _F64)


def table_bytes(table: pa.Table) -> bytes:
    """A Parquet file."""
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = dict.fromkeys(("read", "bad", "excluded_brick", "brick_quality", "not_selected", "near_lens"), 0)
    for one in counts:
        for name, number in one.items():
            total[name] += number
    return total


if __name__ == "__main__":
    run(main)
