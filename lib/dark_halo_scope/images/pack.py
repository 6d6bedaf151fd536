"""Pack stamps into memory-mapped arrays: stamps.json and quality.json -> packed.json.

Memory stays bounded: the rows' columns are held, the images pass through in batches. Rows that cannot be trained on are
left out and counted by reason.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, verified_paths
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.images.codec import BANDS, NpzError, decode_stamp
from dark_halo_scope.images.config import PackSettings
from dark_halo_scope.images.packed import IMAGE_KINDS, KIND, ROWS, SPLITS, array_name
from dark_halo_scope.injection.schema import hard_negative_column, require_columns

MODULE = "dark_halo_scope.images.pack"

# The same object under the same configuration, whichever selection set it came in by.
_IDENTITY = ("brickname", "ra", "dec", "config_id", "replicate")
_REQUIRED = ("task_id", "split", "cutout_ok", "is_control", "stamp_size", *_IDENTITY)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Which rows are packed and where.

    rows: split -> rows in the order of the arrays, without blobs, plus `_file` and `_row`, their place in the stamps.
    excluded: reason -> count.
    """

    rows: Mapping[str, pa.Table]
    excluded: Counter[str]
    size: int


def check_quality(quality: object, stamps: Manifest, where: str) -> None:
    """Refuse stamps that `check_dataset` refused or did not see.

    Raises:
        BadInputError: the verdict is not `accepted`, or it is about other stamps.
    """
    if not isinstance(quality, dict) or "verdict" not in quality:
        raise BadInputError(f"{where} holds no verdict; run check_dataset again.")
    if quality.get("stamps_sha256") != stamps.sha256:
        raise BadInputError(f"{where} was made from other stamps than these; run check_dataset again.")
    if quality["verdict"] != "accepted":
        reasons = "; ".join(str(reason) for reason in quality.get("reasons", [])) or "no reason given"
        raise BadInputError(f"{where} refuses this dataset ({reasons}); correct it and inject again.")


def plan(paths: Sequence[Path], blobs: Sequence[str]) -> Plan:
    """Choose and order rows from the files' columns alone.

    Raises:
        BadInputError: a file lacks a column, or stamps differ in size.
    """
    tables = []
    for number, path in enumerate(paths):
        names = pq.read_schema(path).names
        require_columns(names, (*_REQUIRED, *blobs), str(path))
        table = pq.read_table(path, columns=[name for name in names if not name.endswith("_npz")])
        place = {"_file": np.full(table.num_rows, number), "_row": np.arange(table.num_rows)}
        for name, values in place.items():
            table = table.append_column(name, pa.array(values, pa.int64()))
        tables.append(table)
    if not tables:
        raise BadInputError("The stamps' manifest names no Parquet file; inject again.")
    table = pa.concat_tables(tables, promote_options="permissive").sort_by([("task_id", "ascending")])
    reasons = np.full(table.num_rows, "", dtype=object)
    flags = {
        "cutout failed": ~_equals(table, "cutout_ok", 1),
        "unpaired control": _equals(table, "is_control", 1),
        "unknown split": ~np.isin(table["split"].to_numpy(zero_copy_only=False).astype(str), SPLITS),
        "duplicate": _repeated(table),
    }
    for reason, flagged in flags.items():
        reasons[flagged & (reasons == "")] = reason
    kept = table.filter(pa.array(reasons == ""))
    sizes = pc.unique(kept["stamp_size"]).to_pylist()
    if len(sizes) > 1:
        raise BadInputError(f"Stamps of sizes {sorted(sizes)} cannot share an array; inject them with one stamp_size.")
    rows = {split: kept.filter(pc.equal(kept["split"], split)) for split in SPLITS}
    return Plan(rows, Counter(reason for reason in reasons.tolist() if reason), int(sizes[0]) if sizes else 0)


def pack(paths: Sequence[Path], prefix: Path, settings: PackSettings) -> tuple[Plan, pa.Schema]:
    """Write the arrays and rows of every split below `prefix`.

    A stamp that turns out unreadable, not finite or beyond float16 is excluded and its split written again, which in a
    dataset that passed its check does not happen.

    Raises:
        BadInputError: see `plan`.
        CorruptDataError: a file's rows changed since they were planned.
    """
    columns = _blob_columns(settings)
    chosen = plan(paths, list(columns.values()))
    rows = dict(chosen.rows)
    excluded = chosen.excluded
    with Progress(sum(table.num_rows for table in rows.values()), "Packing (pairs)") as progress:
        for split in SPLITS:
            while bad := _write_split(paths, prefix, split, rows[split], chosen.size, columns, settings, progress):
                excluded.update(bad.values())
                keep = np.ones(rows[split].num_rows, dtype=bool)
                keep[list(bad)] = False
                rows[split] = rows[split].filter(pa.array(keep))
            described = rows[split].drop_columns(["_file", "_row"])
            pq.write_table(described, prefix / split / ROWS, compression="zstd")
    return Plan(rows, excluded, chosen.size), described.schema


def _blob_columns(settings: PackSettings) -> dict[str, str]:
    """Array kind -> blob column."""
    columns = dict(zip(IMAGE_KINDS, ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz"), strict=True))
    extra = {f"hard_negative_{kind}": hard_negative_column(kind) for kind in settings.extra_hard_negatives}
    return columns | extra


def _write_split(
    paths: Sequence[Path],
    prefix: Path,
    split: str,
    rows: pa.Table,
    size: int,
    columns: Mapping[str, str],
    settings: PackSettings,
    progress: Progress,
) -> dict[int, str]:
    """Write one split's arrays; returns the rows that cannot be packed and why."""
    (prefix / split).mkdir(exist_ok=True)
    shape = (rows.num_rows, len(BANDS), size, size)
    targets = {kind: prefix / array_name(split, kind) for kind in columns}
    if rows.num_rows == 0:
        for path in targets.values():
            np.save(path, np.empty(shape, np.float16))
        return {}
    arrays = {kind: np.lib.format.open_memmap(path, "w+", np.float16, shape) for kind, path in targets.items()}
    bad: dict[int, str] = {}
    for slots, batch in _batches(paths, rows, list(columns.values()), settings.batch_rows):
        for kind, column in columns.items():
            for slot, blob in zip(slots.tolist(), batch[column].to_pylist(), strict=True):
                image, reason = _decoded(blob, size)
                if reason:
                    bad.setdefault(slot, reason)
                else:
                    arrays[kind][slot] = image
        progress.advance(len(slots))
    for array in arrays.values():
        array.flush()
    return bad


def _batches(
    paths: Sequence[Path], rows: pa.Table, blobs: list[str], batch_rows: int
) -> Iterator[tuple[npt.NDArray[np.intp], pa.RecordBatch]]:
    """Slots in the split's arrays and the blobs that go there, file by file."""
    files, places = rows["_file"].to_numpy(), rows["_row"].to_numpy()
    tasks = rows["task_id"].to_numpy(zero_copy_only=False)
    for number in np.unique(files).tolist():
        slots = np.flatnonzero(files == number)
        slot_of_row = dict(zip(places[slots].tolist(), slots.tolist(), strict=True))
        start = 0
        with pq.ParquetFile(paths[number]) as file:
            for batch in file.iter_batches(batch_rows, columns=["task_id", *blobs]):
                here = [row for row in range(batch.num_rows) if start + row in slot_of_row]
                wanted = np.array([slot_of_row[start + row] for row in here], dtype=np.intp)
                chosen = batch.take(pa.array(here, pa.int64()))
                if chosen["task_id"].to_pylist() != tasks[wanted].tolist():
                    raise CorruptDataError(f"{paths[number]} changed while it was packed; run pack_images again.")
                start += batch.num_rows
                if len(wanted):
                    yield wanted, chosen


def _decoded(blob: bytes | None, size: int) -> tuple[npt.NDArray[np.float16] | None, str]:
    """Pixels as float16, or why there are none."""
    if blob is None:
        return None, "stamp missing"
    try:
        image = decode_stamp(blob, BANDS, size)
    except NpzError:
        return None, "stamp not readable"
    if not np.isfinite(image).all():
        return None, "pixels not finite"
    # Compared before the cast, which would overflow to infinity.
    if np.abs(image).max() > np.finfo(np.float16).max:
        return None, "pixels beyond float16"
    return image.astype(np.float16), ""


def _equals(table: pa.Table, column: str, value: int) -> npt.NDArray[np.bool_]:
    return pc.fill_null(pc.equal(table[column], value), False).to_numpy()


def _repeated(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Rows whose identity an earlier row has."""
    identity = table.select(list(_IDENTITY)).to_pandas()
    return identity.duplicated(keep="first").to_numpy()


def main(argv: Sequence[str] | None = None) -> None:
    """Write packed.json and the arrays behind it."""
    parser = argument_parser("Pack stamps into memory-mapped arrays for training.")
    parser.add_argument("--stamps", required=True, type=Path, help="stamps.json")
    parser.add_argument("--quality", required=True, type=Path, help="quality.json of the same stamps")
    parser.add_argument("--data-root", help="where the arrays go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, PackSettings)
    stamps = load_manifest(arguments.stamps, "stamps")
    check_quality(read_json(arguments.quality), stamps, str(arguments.quality))
    inputs = [arguments.stamps, arguments.quality]
    with attempt(arguments.output, KIND, MODULE, settings, inputs, arguments.data_root) as work:
        packed, schema = pack(verified_paths(stamps), work.prefix, settings)
        counts = {split: packed.rows[split].num_rows for split in SPLITS}
        for reason, count in sorted(packed.excluded.items()):
            _logger.info("Left out %d rows: %s", count, reason)
        rows_out, rows_excluded = sum(counts.values()), sum(packed.excluded.values())
        work.publish(
            rows_in=rows_out + rows_excluded,
            rows_out=rows_out,
            rows_quarantined=rows_excluded,
            columns={field.name: str(field.type) for field in schema},
            facts={
                "splits": counts,
                "size": packed.size,
                "bands": BANDS,
                "kinds": list(_blob_columns(settings)),
                "excluded": dict(sorted(packed.excluded.items())),
            },
        )


if __name__ == "__main__":
    run(main)
