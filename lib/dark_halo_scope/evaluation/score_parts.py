"""Finished parts of a scoring that may be killed: a rerun of the same code, settings and inputs skips them.

A part is some batches of one kind of image: `<kind>-<first row>.json` names its two files by size and checksum and is
written last, so that a part is there whole or not at all. Files are Arrow streams of one record batch for each batch of
images: read back they are the very tables that were written, and scores keep their bytes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.files import atomic_path, has_sha256, make_directory, read_json, sha256_file, write_json
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.scores import score_batches
from dark_halo_scope.images.packed import ImageBatch

_logger = logging.getLogger(__name__)

#: Images of a part at most: what a kill can lose, a minute's work of two cores.
PART_IMAGES = 20_000

#: What is scored, and what is left out with its reason.
Scored = tuple[pa.Table, pa.Table]


def score_in_parts(
    predict: Predict,
    batches: Iterable[ImageBatch],
    split: str,
    folder: Path,
    made_on: str,
    resumed: Callable[[int], None] = lambda images: None,
) -> Iterator[Scored]:
    """Score images as `score_batches` does, from the parts in `folder` where they are done and into it where not.

    Args:
        predict: the network.
        batches: images of a packed split, none of which is read where its part is done.
        split: its name.
        folder: of the parts of this very scoring.
        made_on: the kind of device; parts of another are done again, for its scores differ in the last digits.
        resumed: told of the images of each part that was done before.

    Yields:
        For each batch, scored rows and rows that are left out.
    """
    make_directory(folder)
    for kind, of_kind in groupby(batches, key=lambda batch: batch.kind):
        while part := _next_part(of_kind):
            name = f"{kind}-{part[0].first:09d}"
            found = read_part(folder, name, made_on)
            if found is None:
                found = list(score_batches(predict, part, split))
                write_part(folder, name, found, made_on)
            else:
                resumed(sum(batch.rows.num_rows for batch in part))
            yield from found


def _next_part(batches: Iterator[ImageBatch]) -> list[ImageBatch]:
    """The next batches, as many as a part has of the first one's size; images of a part are not in memory."""
    first = next(batches, None)
    if first is None:
        return []
    return [first, *islice(batches, max(1, PART_IMAGES // max(1, first.rows.num_rows)) - 1)]


def write_part(folder: Path, name: str, scored: list[Scored], made_on: str) -> None:
    """Write a finished part: its two files, then the marker that makes it one."""
    files = {}
    for label, tables in zip(("scored", "left_out"), zip(*scored, strict=True), strict=True):
        path = folder / f"{name}.{label}.arrow"
        with (
            atomic_path(path) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_stream(sink, tables[0].schema) as writer,
        ):
            for table in tables:
                writer.write_batch(_one_batch(table))
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(folder / f"{name}.json", {"files": files, "made_on": made_on})


def read_part(folder: Path, name: str, made_on: str) -> list[Scored] | None:
    """The tables of a part; None where it is not there, not whole, or of another kind of device."""
    marker = folder / f"{name}.json"
    if not marker.exists():
        return None
    try:
        values = read_json(marker)
        paths = [folder / f"{name}.{label}.arrow" for label in ("scored", "left_out")]
        whole = all(has_sha256(path, values["files"][path.name]["sha256"]) for path in paths)
    except (DarkHaloScopeError, OSError, KeyError, TypeError) as error:
        _logger.warning("Scoring the part %s again: %s", name, error)
        return None
    if not whole or values.get("made_on") != made_on:
        why = "it was made on another kind of device" if whole else "its files are damaged"
        _logger.warning("Scoring the part %s again: %s", name, why)
        return None
    scored, left_out = (_tables(path) for path in paths)
    return list(zip(scored, left_out, strict=True))


def _tables(path: Path) -> list[pa.Table]:
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as stream:
        return [pa.Table.from_batches([batch]) for batch in stream]


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one record batch, also one without rows."""
    batches = table.combine_chunks().to_batches()
    if batches:
        return batches[0]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
