"""Some rows of a dataset of stamps and their images, for reports that need not see all of them.

Rows are those with the smallest task_id. Task ids are SHA-256, so that this is a random choice, one that depends
neither on a seed nor on how rows lie in files, and that is made file by file in bounded memory.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.images.codec import BANDS, NpzError, decode_stamp
from dark_halo_scope.injection.schema import require_columns

_FILE, _ROW = "_file", "_row"


def draw_rows(
    paths: Sequence[Path],
    columns: Sequence[str],
    wanted: Callable[[pa.Table], NDArray[np.bool_]],
    count: int,
) -> tuple[pa.Table, int]:
    """Up to `count` rows that are `wanted`, by increasing task_id, and how many are wanted in all.

    Args:
        paths: stamp files.
        columns: those that are read; one that a file lacks is null in its rows.
        wanted: mask of a table of these columns.
        count: most rows that are kept.

    Raises:
        BadInputError: a file has no task_id, so that it holds no stamps.
    """
    held: list[pa.Table] = []
    total = 0
    last = None
    for number, path in enumerate(paths):
        names = pq.read_schema(path).names
        require_columns(names, ("task_id",), str(path))
        table = pq.read_table(path, columns=[n for n in dict.fromkeys(["task_id", *columns]) if n in names])
        table = place_columns(table, number)
        table = table.filter(pa.array(wanted(table)))
        total += table.num_rows
        held.append(table if last is None else table.filter(pc.less(table["task_id"], last)))
        # Sorted once in a while, not for every file: of many files each adds a few rows only.
        if sum(part.num_rows for part in held) >= 2 * count:
            held = [_smallest(held, count)]
            last = held[0]["task_id"][-1]
    return _smallest(held, count), total


def place_columns(table: pa.Table, number: int) -> pa.Table:
    """All rows of stamp file `number`, with the columns by which `read_images` finds their images."""
    places = {_FILE: np.full(table.num_rows, number), _ROW: np.arange(table.num_rows)}
    for name, values in places.items():
        table = table.append_column(name, pa.array(values, pa.int64()))
    return table


def _smallest(tables: Sequence[pa.Table], count: int) -> pa.Table:
    if not tables:
        return pa.table({})
    rows = pa.concat_tables(tables, promote_options="permissive").sort_by("task_id").slice(0, count)
    return rows.combine_chunks()


def read_images(paths: Sequence[Path], rows: pa.Table, blob: str, size: int) -> NDArray[np.float32]:
    """(N, 3, size, size) nanomaggies per pixel of the rows' stamps; all NaN where there is none or it is unreadable.

    Args:
        paths: those that `draw_rows` was given.
        rows: what it returned, or some of it; or rows with `place_columns`.
        blob: column of the stamps.
        size: side of the stamps, pixels.
    """
    images = np.full((rows.num_rows, len(BANDS), size, size), np.nan, dtype=np.float32)
    files, places = rows[_FILE].to_numpy(), rows[_ROW].to_numpy()
    for number in np.unique(files).tolist():
        slots = np.flatnonzero(files == number)
        with pq.ParquetFile(paths[number]) as file:
            ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
            group_of = np.searchsorted(ends, places[slots], side="right")
            for group in np.unique(group_of).tolist():
                start = int(ends[group - 1]) if group else 0
                blobs = file.read_row_group(group, columns=[blob])[blob]
                for slot in slots[group_of == group].tolist():
                    data = blobs[int(places[slot]) - start].as_py()
                    if data is not None:
                        _decode_into(images[slot], data, size)
    return images


def _decode_into(image: NDArray[np.float32], data: bytes, size: int) -> None:
    try:
        image[:] = decode_stamp(data, BANDS, size)
    except NpzError:
        image[:] = np.nan
