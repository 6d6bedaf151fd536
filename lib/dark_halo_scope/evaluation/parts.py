"""Finished parts of a run that may be killed: a rerun of the same code, settings and inputs skips them.

`<part>.json` names a part's two files by size and checksum and is written last, so that a part is there whole or not at
all. Files are Arrow streams of one record batch for each pair of tables: read back they are the very tables that were
written, and results keep their bytes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from dark_halo_scope.core.artifacts import CHECKPOINTS
from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.files import (
    atomic_path,
    has_sha256,
    make_directory,
    read_json,
    remove_tree,
    sha256_file,
    write_json,
)
from dark_halo_scope.core.locks import lock

_logger = logging.getLogger(__name__)

#: What is scored, and what is left out with its reason.
Scored = tuple[pa.Table, pa.Table]

_LABELS = ("scored", "left_out")

WorkT = TypeVar("WorkT")


@contextmanager
def parts_folder(output: Path, run_key: str) -> Iterator[Path]:
    """The folder of a run's parts, `checkpoints/<run key>/` beside its output, locked while the block runs.

    A block that ends without an error removes it, and those of other run keys: only one process at a time makes an
    output, so that they are of runs that nobody will end.

    Raises:
        LockHeldError: another live process holds it.
    """
    checkpoints = output.with_suffix("") / CHECKPOINTS
    # Tells whoever cleans up that they are in use.
    with lock(checkpoints / f"{run_key}.lock"):
        yield checkpoints / run_key
    remove_tree(checkpoints)


def in_parts(
    parts: Iterable[tuple[str, WorkT]],
    score: Callable[[WorkT], Iterable[Scored]],
    folder: Path,
    made_on: str,
    resumed: Callable[[int], None] = lambda images: None,
) -> Iterator[Scored]:
    """Tables of all parts in their order, from `folder` where a part is done and into it where not.

    Args:
        parts: name of each part, and what it is made of.
        score: makes the tables of a part.
        folder: of the parts of this very run.
        made_on: the kind of device; parts of another are done again, for its logits differ in the last digits.
        resumed: told of the images of each part that was done before.
    """
    make_directory(folder)
    for name, work in parts:
        found = read_part(folder, name, made_on)
        if found is None:
            found = list(score(work))
            write_part(folder, name, found, made_on)
        else:
            resumed(sum(table.num_rows for tables in found for table in tables))
        yield from found


def write_part(folder: Path, name: str, scored: list[Scored], made_on: str) -> None:
    """Write a finished part: its two files, then the marker that makes it one."""
    files = {}
    for path, tables in zip(_paths(folder, name), zip(*scored, strict=True), strict=True):
        with (
            atomic_path(path) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_stream(sink, tables[0].schema) as writer,
        ):
            for table in tables:
                writer.write_batch(_one_batch(table))
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(folder / f"{name}.json", {"files": files, "made_on": made_on})


def is_done(folder: Path, name: str, made_on: str) -> bool:
    """Whether `read_part` would read a part."""
    return (folder / f"{name}.json").exists() and _fault(folder, name, made_on) is None


def read_part(folder: Path, name: str, made_on: str) -> list[Scored] | None:
    """The tables of a part; None where it is not there, not whole, or of another kind of device."""
    if not (folder / f"{name}.json").exists():
        return None
    fault = _fault(folder, name, made_on)
    if fault is not None:
        _logger.warning("Scoring the part %s again: %s", name, fault)
        return None
    scored, left_out = (_tables(path) for path in _paths(folder, name))
    return list(zip(scored, left_out, strict=True))


def _fault(folder: Path, name: str, made_on: str) -> str | None:
    """Why a part whose marker is there is no part of this run."""
    try:
        values = read_json(folder / f"{name}.json")
        whole = all(has_sha256(path, values["files"][path.name]["sha256"]) for path in _paths(folder, name))
    except (DarkHaloScopeError, OSError, KeyError, TypeError) as error:
        return str(error)
    if not whole:
        return "its files are damaged"
    return None if values.get("made_on") == made_on else "it was made on another kind of device"


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.{label}.arrow" for label in _LABELS]


def _tables(path: Path) -> list[pa.Table]:
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as stream:
        return [pa.Table.from_batches([batch]) for batch in stream]


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one record batch, also one without rows."""
    batches = table.combine_chunks().to_batches()
    if batches:
        return batches[0]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
