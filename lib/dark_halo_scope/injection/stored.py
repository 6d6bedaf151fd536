"""Stamps of the earlier pipeline (phase 4c): which variants there are, how their files are read, what each row is.

A variant's columns are those of phase 4c and some more. What a file has in their place (a column less, another type)
is recorded, never guessed around: a column that is needed and missing refuses the file. `region_split` is a column, or
a folder `region_split=train` as Hive has it. Spark re-reads made every field nullable, and any codec is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.ranges import open_binary
from dark_halo_scope.injection.schema import BANDS, PHASE_4C_FIELDS
from dark_halo_scope.injection.stored_config import StoredSettings, Variant
from dark_halo_scope.lensing.psf import Kind
from dark_halo_scope.survey.names import checked_brickname

# The manifest's object that lists the files, in the order of its column `file`.
FILES = "files.json"

_STRING, _I32, _F64 = pa.string(), pa.int32(), pa.float64()

# Without these nothing can be told of a row, or no stamp of it be used.
REQUIRED = (
    *("task_id", "brickname", "ra", "dec", "bandset", "config_id", "replicate", "stamp_size"),
    *("is_control", "cutout_ok", "theta_e_arcsec", "stamp_npz"),
)
# Reasons to leave a row out that say that the data are wrong, not that the row is one too many.
UNIDENTIFIED = ("no task_id", "no brick name", "no position on the sky", "no configuration or replicate")
_BUFFER_BYTES = 8 << 20
_BATCH_ROWS = 20_000


@dataclass(frozen=True)
class VariantFacts:
    """What a variant's files hold and how its arcs were made.

    Attributes:
        extra: columns beside phase 4c's.
        optional: columns that only later runs wrote.
        sources: `sersic` profiles or galaxy `image`s.
        convention: what theta_e_arcsec means, see `StoredSettings`.
        psf: the profile that Sersic arcs were convolved with; its width is psf_fwhm_used.
        unused: columns that were drawn and recorded but never reached a pixel.
    """

    extra: tuple[pa.Field, ...]
    optional: tuple[pa.Field, ...]
    sources: str
    convention: str
    psf: Kind
    unused: tuple[str, ...] = ()


_PSF_SOURCES = tuple(pa.field(f"psf_source_{band}", _I32) for band in BANDS)
_COSMOS = (pa.field("source_mode", _STRING), pa.field("cosmos_index", _I32))
_HLR = pa.field("cosmos_hlr_arcsec", _F64)
# The bank's galaxies were injected at their own size and orientation, in constant colours.
_UNUSED = ("src_reff_arcsec", "src_e", "src_phi_rad", "src_gr", "src_rz")

VARIANTS: Mapping[Variant, VariantFacts] = {
    "v3_color_relaxed": VariantFacts(
        (), (pa.field("total_injected_flux_r", _F64), *_PSF_SOURCES), "sersic", "lacks_sqrt_q", "gaussian"
    ),
    "v4_sota": VariantFacts((), (), "sersic", "lacks_sqrt_q", "gaussian"),
    "v4_sota_moffat": VariantFacts((), (), "sersic", "lacks_sqrt_q", "moffat"),
    "v5_cosmos_production": VariantFacts((*_COSMOS, _HLR), (), "image", "product_average", "moffat", _UNUSED),
    "cosmos_corrected": VariantFacts(
        (*_COSMOS, pa.field("arc_snr_sum", _F64), pa.field("lensed_hlr_arcsec", _F64)),
        (),
        "image",
        "product_average",
        "moffat",
        _UNUSED,
    ),
    "v5_cosmos_paired": VariantFacts(
        (*_COSMOS, _HLR, pa.field("ctrl_stamp_npz", pa.binary())), (), "image", "product_average", "moffat", _UNUSED
    ),
}

# Of every column that a variant may have; a name means one type in all of them.
_TYPES: Mapping[str, pa.DataType] = {
    field.name: field.type for facts in VARIANTS.values() for field in (*PHASE_4C_FIELDS, *facts.extra, *facts.optional)
}

INVENTORY_SCHEMA = pa.schema(
    [
        *(pa.field(name, _STRING) for name in ("task_id", "brickname")),
        *(pa.field(name, _F64) for name in ("ra", "dec")),
        pa.field("healpix_128", pa.int64()),
        *(pa.field(name, _STRING) for name in ("split", "stored_split", "original_split")),
        *(pa.field(name, _STRING) for name in ("selection_set_id", "config_id")),
        *(pa.field(name, _I32) for name in ("replicate", "is_control", "cutout_ok", "file", "row_group", "row")),
        pa.field("single_precision", pa.bool_()),
        pa.field("reason", _STRING),
    ]
)


class StoredFile(NamedTuple):
    """One Parquet file, and the split that its folder says (None: a column does)."""

    uri: str
    size: int
    region_split: str | None


class FileReport(NamedTuple):
    """What the footer of a file tells: `differences` are sentences about its columns."""

    rows: int
    differences: tuple[str, ...]


def stored_files(uri: str, require_success: bool) -> list[StoredFile]:
    """The Parquet files below `uri`, sorted, without what Spark leaves behind in folders that begin with `_`.

    Raises:
        BadInputError: none, or one whose job did not finish: no `_SUCCESS` lies beside it or above it.
    """
    sizes = dict(storage.list_sizes(uri))
    done = {name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] == "_SUCCESS"}
    found = []
    for name, size in sorted(sizes.items()):
        folders = name.split("/")[:-1]
        if not name.endswith(".parquet") or any(part.startswith("_") for part in name.split("/")):
            continue
        above = {"/".join(folders[:depth]) for depth in range(len(folders) + 1)}
        if require_success and not above & done:
            raise BadInputError(
                f"{uri}/{name} has no _SUCCESS beside it or above it, so the job that wrote it did not finish; point "
                "`stored.uri` at the directory that has one, or set require_success: false if a copy lost it."
            )
        hive = dict(part.split("=", 1) for part in folders if "=" in part)
        found.append(StoredFile(storage.join(uri, name), size, hive.get("region_split")))
    if not found:
        raise BadInputError(f"{uri} holds no Parquet file; correct `stored.uri`.")
    return found


def open_parquet(file: StoredFile) -> pq.ParquetFile:
    """The file, read in place and piece by piece.

    Raises:
        CorruptDataError: it is no whole Parquet file.
        BadInputError: it is not there.
    """
    try:
        return pq.ParquetFile(open_binary(file.uri), buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise CorruptDataError(f"{file.uri} is no whole Parquet file ({error}); copy it again.") from error


def describe_file(file: StoredFile, variant: Variant) -> FileReport:
    """Rows of a file, and how its columns differ from the variant's.

    Raises:
        BadInputError: a column is missing without which nothing can be done, is of a type that cannot be read, or RA
            and Dec are single precision.
    """
    with open_parquet(file) as parquet:
        differences = compare_schema(parquet.schema_arrow, variant, file)
        return FileReport(parquet.metadata.num_rows, differences)


def compare_schema(schema: pa.Schema, variant: Variant, file: StoredFile) -> tuple[str, ...]:
    """See `describe_file`. Nullability is no difference: Spark drops it."""
    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        raise BadInputError(f"{file.uri} lacks the columns {', '.join(missing)}: it holds no stamps of {variant}.")
    for name in ("ra", "dec"):
        if not pa.types.is_float64(schema.field(name).type):
            raise BadInputError(
                f"{file.uri} has {name} as {schema.field(name).type}: single precision moves a position by 0.1 arcsec, "
                "and with it the stamp and perhaps the split; write the rows again from float64 positions."
            )
    facts = VARIANTS[variant]
    due = {field.name: field for field in (*PHASE_4C_FIELDS, *facts.extra)}
    if file.region_split is not None:
        del due["region_split"]
    differences = [f"lacks {name}" for name in due if name not in schema.names]
    known = due | {field.name: field for field in facts.optional}
    for field in schema:
        expected = known.get(field.name)
        if expected is None:
            differences.append(f"has {field.name} ({field.type}) besides")
        elif field.type != expected.type:
            if not _readable(field.type, expected.type):
                raise BadInputError(
                    f"{file.uri} has {field.name} as {field.type}, which is no {expected.type}; correct the variant."
                )
            differences.append(f"has {field.name} as {field.type}, not {expected.type}")
    return tuple(differences)


def inventory(file: StoredFile, number: int, settings: StoredSettings, left_out: frozenset[str]) -> Iterator[pa.Table]:
    """What each row of a file is and where it lies, without its stamps: `INVENTORY_SCHEMA`, batch by batch.

    Cell and split follow from the position; the stored split is kept beside them. `reason` is null in rows to keep.

    Args:
        number: of the file; `row_group` and `row` within it complete a row's place.
        left_out: names of bricks whose rows are not wanted.
    """
    names = ("task_id", "brickname", "ra", "dec", "selection_set_id", "config_id", "replicate", "is_control")
    with open_parquet(file) as parquet:
        present = set(parquet.schema_arrow.names)
        wanted = [n for n in (*names, "cutout_ok", "bandset", "region_split", "original_split") if n in present]
        for group in range(parquet.metadata.num_row_groups):
            first = 0
            for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
                yield _inventory(pa.Table.from_batches([batch]), file, (number, group, first), settings, left_out)
                first += batch.num_rows


def _inventory(
    table: pa.Table,
    file: StoredFile,
    place: tuple[int, int, int],
    settings: StoredSettings,
    left_out: frozenset[str],
) -> pa.Table:
    count = table.num_rows
    ra_N, dec_N = (table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("ra", "dec"))
    with np.errstate(invalid="ignore"):
        on_sky_N = (ra_N >= 0.0) & (ra_N < 360.0) & (np.abs(dec_N) <= 90.0)
        single_N = (ra_N == ra_N.astype(np.float32)) & (dec_N == dec_N.astype(np.float32))
    cell_N = np.full(count, -1, dtype=np.int64)
    cell_N[on_sky_N] = healpix_cell(ra_N[on_sky_N], dec_N[on_sky_N])
    split_N = np.full(count, None, dtype=object)
    split_N[on_sky_N] = split_of_cells(cell_N[on_sky_N], settings.split_seed)
    text = {
        name: as_type(table[name], _STRING) if name in table.column_names else pa.nulls(count, _STRING)
        for name in ("task_id", "brickname", "selection_set_id", "config_id", "bandset", "original_split")
    }
    numbers = {name: as_type(table[name], _I32) for name in ("replicate", "is_control", "cutout_ok")}
    stored = as_type(table["region_split"], _STRING) if "region_split" in table.column_names else None
    if file.region_split is not None:
        stored = pa.array([file.region_split] * count, _STRING)
    bricks = text["brickname"].to_pylist()
    good = {name: _is_brick(name) for name in set(bricks)}
    control_N = pc.fill_null(pc.equal(numbers["is_control"], 1), False).to_numpy(zero_copy_only=False)
    unset_N = _null(numbers["replicate"]) | _null(numbers["is_control"]) | (_null(text["config_id"]) & ~control_N)
    bandset = text["bandset"].to_pylist()
    flags: list[tuple[str, NDArray[np.bool_]]] = [
        ("no task_id", _null(text["task_id"])),
        ("no brick name", np.array([not good[name] for name in bricks], dtype=bool)),
        ("no position on the sky", ~on_sky_N),
        ("no configuration or replicate", unset_N),
        ("brick left out", np.array([name in left_out for name in bricks], dtype=bool)),
        ("not in g, r and z", np.array([bands != BANDS for bands in bandset], dtype=bool)),
    ]
    reason_N = np.full(count, None, dtype=object)
    for reason, flag_N in reversed(flags):
        reason_N[flag_N] = reason
    columns = {
        **{name: text[name] for name in ("task_id", "brickname", "selection_set_id", "config_id", "original_split")},
        **numbers,
        "ra": ra_N,
        "dec": dec_N,
        "healpix_128": cell_N,
        "split": pa.array(split_N, _STRING),
        "stored_split": pa.nulls(count, _STRING) if stored is None else stored,
        "file": np.full(count, place[0], np.int32),
        "row_group": np.full(count, place[1], np.int32),
        "row": np.arange(place[2], place[2] + count, dtype=np.int32),
        "single_precision": single_N,
        "reason": pa.array(reason_N, _STRING),
    }
    return pa.table([columns[name] for name in INVENTORY_SCHEMA.names], schema=INVENTORY_SCHEMA)


def rows_at(
    file: StoredFile, places: Sequence[tuple[int, int]], batch_rows: int
) -> Iterator[tuple[pa.Table, NDArray[np.intp]]]:
    """Some rows of a file with all their columns, in order and batch by batch; of a row group, no more than that.

    Args:
        places: (row group, row in it), sorted.
        batch_rows: most rows of blobs held at once.

    Yields:
        The rows, known columns in the earlier pipeline's own types, and their numbers in `places`.

    Raises:
        CorruptDataError: the file has no such row group, or a value that does not fit its column's type.
    """
    group_P = np.array([group for group, _ in places], dtype=np.intp)
    row_P = np.array([row for _, row in places], dtype=np.intp)
    with open_parquet(file) as parquet:
        if len(group_P) and group_P[-1] >= parquet.metadata.num_row_groups:
            raise CorruptDataError(f"{file.uri} has fewer row groups than were listed; list the stored stamps again.")
        for group in np.unique(group_P).tolist():
            first, numbers = 0, np.flatnonzero(group_P == group)
            for batch in parquet.iter_batches(batch_rows, row_groups=[group]):
                here = numbers[(row_P[numbers] >= first) & (row_P[numbers] < first + batch.num_rows)]
                if len(here):
                    yield _typed(pa.Table.from_batches([batch]).take(pa.array(row_P[here] - first)), file), here
                first += batch.num_rows


def _typed(table: pa.Table, file: StoredFile) -> pa.Table:
    """Columns in their types, whichever a file has in their place: flags may be booleans, numbers narrower."""
    for number, field in enumerate(table.schema):
        dtype = _TYPES.get(field.name, field.type)
        if field.type != dtype:
            try:
                table = table.set_column(number, field.name, as_type(table[number], dtype))
            except pa.ArrowInvalid as error:
                raise CorruptDataError(f"{file.uri} has a {field.name} that is no {dtype} ({error}).") from error
    return table


def as_type(column: pa.ChunkedArray, dtype: pa.DataType) -> pa.Array:
    """A column as another type of the same kind: dictionaries as their values, narrow numbers as wide ones."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array if array.type == dtype else array.cast(dtype)


def _readable(stored: pa.DataType, expected: pa.DataType) -> bool:
    """Whether values of one type can be read as the other without loss of meaning."""
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    kinds = (
        lambda dtype: pa.types.is_string(dtype) or pa.types.is_large_string(dtype),
        lambda dtype: pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype),
        lambda dtype: pa.types.is_integer(dtype) or pa.types.is_boolean(dtype),
        pa.types.is_floating,
    )
    return any(kind(stored) and kind(expected) for kind in kinds)


def _is_brick(name: str | None) -> bool:
    try:
        return name is not None and checked_brickname(name) == name
    except BadInputError:
        return False


def _null(array: pa.Array) -> NDArray[np.bool_]:
    return array.is_null().to_numpy(zero_copy_only=False)
