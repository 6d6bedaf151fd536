"""The work on one manifest file of stored stamps: read them where they lie, in batches, and write stamp files.

Spark's workers import this module by name, which is why it is not the command line's own.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.core.errors import CorruptDataError, DarkHaloScopeError
from dark_halo_scope.core.manifest import Manifest, ObjectEntry, verified_path, write_object
from dark_halo_scope.injection.adopt import Adopted, adopt_brick, adopted_schema
from dark_halo_scope.injection.stamp_parquet import parquet_bytes
from dark_halo_scope.injection.stored import FILES, StoredFile, rows_at
from dark_halo_scope.injection.stored_config import StoredSettings
from dark_halo_scope.survey.cache_coadds import load_brick
from dark_halo_scope.survey.coadds import BrickCoadds

# What the listing says of a row, over what its file says.
_FROM_LISTING = ("split", "healpix_128")


@dataclass(frozen=True)
class AdoptJob:
    """What every unit of work needs; small, and sent to the executors.

    audited: fraction of the positives whose arcs are rendered again.
    """

    manifest: Manifest
    coadds: Manifest
    settings: StoredSettings
    target: str
    audited: float


@dataclass
class AdoptReport:
    """What became of the rows of one manifest file, or why nothing did."""

    entries: list[ObjectEntry] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    controls: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    nulls: Counter[str] = field(default_factory=Counter)
    fully_masked: int = 0
    maxpix_ratios: list[float] = field(default_factory=list)
    looked_at: int = 0
    audits: list[Mapping[str, float]] = field(default_factory=list)
    error: DarkHaloScopeError | None = None


def adopt_file(name: str, job: AdoptJob) -> AdoptReport:
    """Take over all rows of one manifest file; runs in a Spark task and holds `rows_per_file` rows at a time.

    An error that a user should read comes back as a value: Spark would bury it in a stack trace.
    """
    report = AdoptReport()
    try:
        listed = pq.read_table(verified_path(job.manifest, name))
        files = [StoredFile(**item) for item in json.loads(verified_path(job.manifest, FILES).read_bytes())]
        stem = PurePosixPath(name).stem.removeprefix("manifest-")
        places = list(zip(listed["row_group"].to_pylist(), listed["row"].to_pylist(), strict=True))
        file = files[listed["file"][0].as_py()]
        with _Bricks(job.coadds) as bricks:
            for number, batch in enumerate(rows_at(file, places, job.settings.rows_per_file)):
                rows = _rows(*batch, listed, file)
                adopted = list(_adopted(rows, bricks, job))
                table = pa.Table.from_pylist([one.values for one in adopted], schema=adopted_schema())
                data = parquet_bytes(table.sort_by("task_id"))
                entry = write_object(job.target, f"stamps-{stem}-{number:04d}.parquet", data)
                _record(report, entry, table, adopted)
    except DarkHaloScopeError as error:
        report.error = error
    return report


class _Bricks:
    """Coadds of one brick at a time, kept open while the rows stay on it."""

    def __init__(self, coadds: Manifest) -> None:
        self._coadds = coadds
        self._missing = {item["brickname"] for item in coadds.facts["missing"]}
        self._name: str | None = None
        self._open: BrickCoadds | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "_Bricks":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, brickname: str) -> BrickCoadds | None:
        """The brick's coadds; None where they are not to be had."""
        if brickname != self._name:
            self._stack.close()
            self._name, self._open = brickname, None
            if brickname not in self._missing:
                self._open = self._stack.enter_context(load_brick(self._coadds, brickname))
        return self._open


def _rows(table: pa.Table, numbers: np.ndarray, listed: pa.Table, file: StoredFile) -> list[dict[str, Any]]:
    """Stored rows with what the listing says of them.

    Raises:
        CorruptDataError: a row is not the one that was listed.
    """
    here = listed.take(pa.array(numbers)).to_pylist()
    rows = table.to_pylist()
    for row, known in zip(rows, here, strict=True):
        if row["task_id"] != known["task_id"]:
            raise CorruptDataError(f"{file.uri} changed since its rows were listed; list the stored stamps again.")
        row |= {name: known[name] for name in _FROM_LISTING}
    return rows


def _adopted(rows: Sequence[dict[str, Any]], bricks: _Bricks, job: AdoptJob) -> Iterator[Adopted]:
    """Brick by brick, so that each is opened once however its rows lie in the batch."""
    by_brick: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_brick.setdefault(row["brickname"], []).append(row)
    for name, here in by_brick.items():
        yield from adopt_brick(here, bricks.get(name), job.settings, job.audited)


def _record(report: AdoptReport, entry: ObjectEntry, table: pa.Table, adopted: Sequence[Adopted]) -> None:
    report.entries.append(entry)
    report.splits.update(table["split"].to_pylist())
    report.controls += table["is_control"].to_pylist().count(1)
    report.reasons.update(reason for reason in table["cutout_reason"].to_pylist() if reason)
    report.nulls.update({name: table[name].null_count for name in table.column_names if table[name].null_count})
    report.fully_masked += sum(one.fully_masked for one in adopted)
    report.maxpix_ratios += [one.maxpix_ratio for one in adopted if one.maxpix_ratio is not None]
    report.looked_at += sum(one.looked_at for one in adopted)
    report.audits += [one.audit for one in adopted if one.audit is not None]
