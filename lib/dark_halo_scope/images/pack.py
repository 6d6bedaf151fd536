"""Pack stamps into memory-mapped arrays: stamps.json, quality.json and perhaps negatives.json -> packed.json.

Memory stays bounded: of all rows together only their places are held (250 bytes a row while they are sorted, then 35),
columns and images pass through in batches. Rows that cannot be trained on are left out and counted by reason; nothing
takes their place.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, verified_paths
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.images.codec import BANDS, NpzError, common_size, decode_stamp
from dark_halo_scope.images.config import PackSettings
from dark_halo_scope.images.packed import IMAGE_KINDS, KIND, NEGATIVE, NEGATIVE_ROWS, ROWS, SPLITS, array_name
from dark_halo_scope.injection.schema import hard_negative_column, require_columns

MODULE = "dark_halo_scope.images.pack"

# The same object under the same configuration, whichever selection set it came in by.
_IDENTITY = ("brickname", "ra", "dec", "config_id", "replicate")
_REQUIRED = ("task_id", "split", "cutout_ok", "is_control", "stamp_size", *_IDENTITY)

_REASONS = ("", "cutout failed", "unknown split", "duplicate")
_GOOD, _FAILED, _NO_SPLIT, _DUPLICATE = range(4)

# All that is held of a row: where it lies (stamp file and row in it), hashes of its task_id and identity, what it is.
_PLACE = np.dtype(
    [
        *(("file", np.int32), ("row", np.int32), ("task", np.uint64), ("identity", np.uint64)),
        *(("split", np.int8), ("reason", np.int8), ("control", np.bool_)),
    ]
)
Places = npt.NDArray[np.void]

# Rows without their blobs take about a kilobyte each in memory.
_ROWS_AT_ONCE = 100_000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Which rows are packed and where.

    pairs, negatives: split -> places (N,) of the rows in the order of the arrays.
    excluded: reason -> count.
    size: pixels of a stamp's side; 0 where there is none.
    """

    pairs: dict[str, Places]
    negatives: dict[str, Places]
    excluded: Counter[str]
    size: int


def check_quality(quality: object, stamps: Manifest, negatives: Sequence[Manifest], where: str) -> None:
    """Refuse stamps that `check_dataset` refused or did not see.

    Raises:
        BadInputError: the verdict is not `accepted`, or it is about other stamps or negatives.
    """
    if not isinstance(quality, dict) or "verdict" not in quality:
        raise BadInputError(f"{where} holds no verdict; run check_dataset again.")
    if quality.get("stamps_sha256") != stamps.sha256:
        raise BadInputError(f"{where} was made from other stamps than these; run check_dataset again.")
    if quality.get("negatives_sha256", []) != [manifest.sha256 for manifest in negatives]:
        raise BadInputError(f"{where} was made with other negatives than these; run check_dataset again.")
    if quality["verdict"] != "accepted":
        reasons = "; ".join(str(reason) for reason in quality.get("reasons", [])) or "no reason given"
        raise BadInputError(f"{where} refuses this dataset ({reasons}); correct it and inject again.")


def plan(
    paths: Sequence[Path], blobs: Sequence[str], negative_paths: Sequence[Path] = (), at_once: int = _ROWS_AT_ONCE
) -> Plan:
    """Choose and order rows from a few columns of the files.

    A control that is in the stamps by itself is a negative, like every row of `negative_paths`. Rows are ordered by
    task_id. The first good row of an identity (brick, position, configuration, replicate; of a negative its place
    alone, because its replicates are one image) stays, the others are duplicates. Identities are compared by 64-bit
    hashes: two different ones among ten million collide with a chance of 3e-6.

    Args:
        paths: stamp files; those of negatives follow them in the numbers of `file`.
        blobs: columns of stamps that pairs have, `stamp_npz` first.
        negative_paths: files of negatives, in the same schema.
        at_once: rows read at once.

    Raises:
        BadInputError: a file lacks a column, or stamps differ in size.
    """
    if not paths:
        raise BadInputError("The stamps' manifest names no Parquet file; inject again.")
    tasks, parts = [], []
    sizes: set[int] = set()
    for number, path in enumerate([*paths, *negative_paths]):
        with pq.ParquetFile(path) as file:
            require_columns(
                file.schema_arrow.names, (*_REQUIRED, *(blobs if number < len(paths) else blobs[:1])), str(path)
            )
            start = 0
            for batch in file.iter_batches(at_once, columns=list(_REQUIRED)):
                part = _places(batch, number, start)
                start += batch.num_rows
                tasks.append(batch["task_id"].cast(pa.large_string()))
                parts.append(part)
                good = batch.filter(pa.array(part["reason"] == _GOOD))
                sizes.update(good["stamp_size"].unique().to_pylist())
    size = common_size(sizes)
    order = pc.sort_indices(pa.chunked_array(tasks, pa.large_string())).to_numpy()
    tasks.clear()
    places = np.concatenate([*parts, np.empty(0, _PLACE)])[order]
    good = np.flatnonzero(places["reason"] == _GOOD)
    places["reason"][good[pd.Series(places["identity"][good]).duplicated().to_numpy()]] = _DUPLICATE

    def chosen(code: int, control: bool) -> Places:
        return places[(places["reason"] == _GOOD) & (places["split"] == code) & (places["control"] == control)]

    counts = {name: int(np.sum(places["reason"] == code)) for code, name in enumerate(_REASONS) if name}
    return Plan(
        pairs={name: chosen(code, False) for code, name in enumerate(SPLITS)},
        negatives={name: chosen(code, True) for code, name in enumerate(SPLITS)},
        excluded=+Counter(counts),
        size=size,
    )


def _places(batch: pa.RecordBatch, number: int, start: int) -> Places:
    places = np.empty(batch.num_rows, _PLACE)
    places["file"], places["row"] = number, start + np.arange(batch.num_rows)
    places["task"] = pd.util.hash_array(batch["task_id"].to_numpy(zero_copy_only=False))
    places["split"] = -1
    for code, name in enumerate(SPLITS):
        places["split"][_equals(batch, "split", name)] = code
    places["control"] = _equals(batch, "is_control", 1)
    failed = ~_equals(batch, "cutout_ok", 1)
    places["reason"] = np.where(failed, _FAILED, np.where(places["split"] < 0, _NO_SPLIT, _GOOD))
    identity = batch.select(list(_IDENTITY)).to_pandas()
    identity.loc[places["control"], "config_id"] = ""
    identity.loc[places["control"], "replicate"] = 0
    places["identity"] = pd.util.hash_pandas_object(identity, index=False)
    return places


def pack(
    paths: Sequence[Path],
    prefix: Path,
    settings: PackSettings,
    negative_paths: Sequence[Path] = (),
    pairs: bool = True,
) -> tuple[Plan, pa.Schema]:
    """Write the arrays and rows of every split below `prefix`.

    A stamp that turns out unreadable, not finite or beyond float16 is excluded and its split written again, which in a
    dataset that passed its check does not happen.

    Args:
        paths: stamp files.
        prefix: folder of the arrays.
        settings: of the arrays.
        negative_paths: files of negatives.
        pairs: whether positives have controls and hard negatives; lenses of the sky have none.

    Raises:
        BadInputError: see `plan`; or hard negatives are asked for where there are no pairs.
        CorruptDataError: a file's rows changed since they were planned.
    """
    columns = _blob_columns(settings, pairs)
    chosen = plan(paths, list(columns.values()), negative_paths)
    files = [*paths, *negative_paths]
    groups = [
        (chosen.pairs, columns, ROWS),
        (chosen.negatives, {NEGATIVE: columns["positive"]}, NEGATIVE_ROWS),
    ]
    schema = _row_schema(files)
    with Progress(sum(len(p) for places, _, _ in groups for p in places.values()), "Packing (rows)") as progress:
        for split in SPLITS:
            (prefix / split).mkdir()
            for places, kinds, rows_name in groups:
                targets = {column: prefix / array_name(split, kind) for kind, column in kinds.items()}
                while bad := _write_images(files, places[split], targets, chosen.size, settings, progress):
                    chosen.excluded.update(bad.values())
                    places[split] = np.delete(places[split], list(bad))
                _write_rows(files, places[split], prefix / split / rows_name, schema)
    return chosen, schema


def _blob_columns(settings: PackSettings, pairs: bool) -> dict[str, str]:
    """Array kind -> blob column."""
    if not pairs:
        if settings.extra_hard_negatives:
            raise BadInputError(
                "Lenses of the sky have no hard negatives of their own; drop pack.extra_hard_negatives."
            )
        return {IMAGE_KINDS[0]: "stamp_npz"}
    columns = dict(zip(IMAGE_KINDS, ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz"), strict=True))
    extra = {f"hard_negative_{kind}": hard_negative_column(kind) for kind in settings.extra_hard_negatives}
    return columns | extra


def _write_images(
    paths: Sequence[Path],
    places: Places,
    targets: Mapping[str, Path],
    size: int,
    settings: PackSettings,
    progress: Progress,
) -> dict[int, str]:
    """Write an array for each blob column; returns the slots that cannot be packed and why."""
    shape = (len(places), len(BANDS), size, size)
    if not len(places):
        for path in targets.values():
            np.save(path, np.empty(shape, np.float16))
        return {}
    arrays = {column: np.lib.format.open_memmap(path, "w+", np.float16, shape) for column, path in targets.items()}
    bad: dict[int, str] = {}
    for slots, batch in _batches(paths, places, list(targets), settings.batch_rows):
        for column, array in arrays.items():
            for slot, blob in zip(slots.tolist(), batch[column].to_pylist(), strict=True):
                image, reason = _decoded(blob, size)
                if reason:
                    bad.setdefault(slot, reason)
                else:
                    array[slot] = image
        progress.advance(len(slots))
    for array in arrays.values():
        array.flush()
    return bad


def _batches(
    paths: Sequence[Path], places: Places, columns: Sequence[str] | None, batch_rows: int
) -> Iterator[tuple[npt.NDArray[np.intp], pa.RecordBatch]]:
    """Slots in the arrays and the columns (None: all but blobs) of the rows that go there, file by file."""
    if not len(places):
        return
    # In the order in which the files have them.
    by_place = np.lexsort((places["row"], places["file"]))
    numbers, firsts = np.unique(places["file"][by_place], return_index=True)
    for number, slots in zip(numbers.tolist(), np.split(by_place, firsts[1:]), strict=True):
        rows = places["row"][slots]
        start = 0
        with pq.ParquetFile(paths[number]) as file:
            names = _without_blobs(file.schema_arrow).names if columns is None else ["task_id", *columns]
            for batch in file.iter_batches(batch_rows, columns=names):
                low, high = np.searchsorted(rows, [start, start + batch.num_rows])
                wanted, chosen = slots[low:high], batch.take(pa.array(rows[low:high] - start))
                tasks = pd.util.hash_array(chosen["task_id"].to_numpy(zero_copy_only=False))
                if not np.array_equal(tasks, places["task"][wanted]):
                    raise CorruptDataError(f"{paths[number]} changed while it was packed; run pack_images again.")
                start += batch.num_rows
                if len(wanted):
                    yield wanted, chosen


def _row_schema(paths: Sequence[Path]) -> pa.Schema:
    """Columns of all files but their blobs; a file may lack one, so that each may be null."""
    schemas = [_without_blobs(pq.read_schema(path)) for path in paths]
    found = pa.unify_schemas(list(dict.fromkeys(schemas)), promote_options="permissive")
    return pa.schema([pa.field(field.name, field.type) for field in found])


def _without_blobs(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if not field.name.endswith("_npz")])


def _write_rows(
    paths: Sequence[Path], places: Places, target: Path, schema: pa.Schema, at_once: int = _ROWS_AT_ONCE
) -> None:
    """Write the rows that describe the arrays, in their order.

    Rows of one stretch of the arrays lie scattered over all files: they are dealt out to one file a stretch first, then
    each stretch is put in order.
    """
    count = -(-len(places) // at_once)
    slot = pa.field("_slot", pa.int64())
    with TemporaryDirectory(prefix="rows-", dir=target.parent) as folder:
        stretches = [Path(folder) / f"{number}.arrow" for number in range(count)]
        sinks = [pa.ipc.new_file(path, schema.append(slot)) for path in stretches]
        try:
            for slots, batch in _batches(paths, places, None, at_once):
                rows = _conformed(batch, schema).append_column(slot, pa.array(slots))
                stretch = slots // at_once
                for number in np.unique(stretch).tolist():
                    sinks[number].write_table(rows.filter(pa.array(stretch == number)))
        finally:
            for sink in sinks:
                sink.close()
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for path in stretches:
                with pa.ipc.open_file(path) as file:
                    writer.write_table(file.read_all().sort_by("_slot").drop_columns(["_slot"]))
            if not count:
                writer.write_table(schema.empty_table())


def _conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """The batch with all columns of the schema, null where it has none."""
    names = set(batch.schema.names)
    columns = [batch[f.name].cast(f.type) if f.name in names else pa.nulls(batch.num_rows, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


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


def _equals(batch: pa.RecordBatch, column: str, value: int | str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(pc.equal(batch[column], value), False))


def _kinds(prefix: Path) -> dict[str, int]:
    """Kind of negative -> how many were written."""
    counts: Counter[str] = Counter()
    for split in SPLITS:
        counts.update(
            pq.read_table(prefix / split / NEGATIVE_ROWS, columns=["control_kind"])["control_kind"].to_pylist()
        )
    return {kind or "unknown": counts[kind] for kind in sorted(counts, key=str)}


def main(argv: Sequence[str] | None = None) -> None:
    """Write packed.json and the arrays behind it."""
    parser = argument_parser("Pack stamps into memory-mapped arrays for training.")
    parser.add_argument("--stamps", required=True, type=Path, help="stamps.json")
    parser.add_argument("--quality", required=True, type=Path, help="quality.json of the same stamps")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="negatives.json of the same dataset")
    parser.add_argument("--data-root", help="where the arrays go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, PackSettings)
    stamps = load_manifest(arguments.stamps, "stamps")
    negatives = [load_manifest(path, "negatives") for path in arguments.negatives]
    check_quality(read_json(arguments.quality), stamps, negatives, str(arguments.quality))
    inputs = [arguments.stamps, arguments.quality, *arguments.negatives]
    with attempt(arguments.output, KIND, MODULE, settings, inputs, arguments.data_root) as work:
        confusers = [path for manifest in negatives for path in verified_paths(manifest)]
        # Who made the stamps knows whether positives have partners.
        paired = bool(stamps.facts.get("pairs", True))
        packed, schema = pack(verified_paths(stamps), work.prefix, settings, confusers, paired)
        pairs, others = ({split: len(p) for split, p in group.items()} for group in (packed.pairs, packed.negatives))
        for reason, count in sorted(packed.excluded.items()):
            _logger.info("Left out %d rows: %s", count, reason)
        rows_out, rows_excluded = sum(pairs.values()) + sum(others.values()), sum(packed.excluded.values())
        work.publish(
            rows_in=rows_out + rows_excluded,
            rows_out=rows_out,
            rows_quarantined=rows_excluded,
            columns={field.name: str(field.type) for field in schema},
            facts={
                "splits": pairs,
                "negatives": others,
                "negative_kinds": _kinds(work.prefix),
                "size": packed.size,
                "bands": BANDS,
                "kinds": list(_blob_columns(settings, paired)),
                "excluded": dict(sorted(packed.excluded.items())),
            },
        )


if __name__ == "__main__":
    run(main)
