"""Stamp files: which rows share one, how it is written, and the work on one manifest file that fills some.

Spark's workers import this module by name, which is why it is not the command line's own.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.manifest import Manifest, ObjectEntry, Target, verified_path, write_or_take_over
from dark_halo_scope.injection.brick_parts import parts_of
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.inject import host_order, inject_rows
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.source_config import SourceBankSettings, SourceCheckSettings
from dark_halo_scope.injection.sources import SourceBank, open_survey_bank
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_parquet import write_parquet
from dark_halo_scope.survey.cache_coadds import load_brick
from dark_halo_scope.survey.description import SurveyDescription


@dataclass(frozen=True)
class Job:
    """What every unit of work needs; small, and sent to the executors."""

    manifest: Manifest
    coadds: Manifest
    survey: SurveyDescription
    settings: StampSettings
    target: Target
    sources: Manifest

    @property
    def bank_settings(self) -> SourceBankSettings:
        """As the galaxies were measured, so that they are rendered with the sizes that were found."""
        return SourceCheckSettings.model_validate(self.sources.facts["settings"]).bank

    @property
    def bank_sha256(self) -> tuple[tuple[str, str], ...]:
        """Name and checksum of each file of the bank, as the galaxies were measured."""
        return tuple(sorted(self.sources.facts["bank"]["files"].items()))

    @property
    def manifest_settings(self) -> ManifestSettings:
        return ManifestSettings.model_validate(self.manifest.facts["settings"])


@dataclass(frozen=True)
class Written:
    """One output file, or why there is none."""

    entry: ObjectEntry | None
    split: str
    rows: int
    reasons: Mapping[str, int]
    error: DarkHaloScopeError | None = None


class Part(Protocol):
    """What a Spark task says of the file that it wrote."""

    @property
    def reasons(self) -> Mapping[str, int]: ...

    @property
    def error(self) -> DarkHaloScopeError | None: ...


def failed_cutouts(parts: Iterable[Part]) -> Counter[str]:
    """Why cutouts failed, and how many; the first error that a task ended with is raised."""
    parts = list(parts)
    for part in parts:
        if part.error is not None:
            raise part.error
    reasons: Counter[str] = Counter()
    for part in parts:
        reasons.update(part.reasons)
    return reasons


def write_stamps(
    target: Target, name: str, stamps: Iterable[pa.Table], schema: pa.Schema
) -> tuple[ObjectEntry, dict[str, int]]:
    """Write a stamp file as its rows come, and say why cutouts of it failed, and how many.

    One that an interrupted attempt at the same dataset has written is taken over, and no row of `stamps` is made.
    """
    reasons: Counter[str] = Counter()

    def counted() -> Iterator[pa.Table]:
        for table in stamps:
            reasons.update(_reasons(table))
            yield table

    def write(path: Path) -> Counter[str]:
        write_parquet(path, counted(), schema)
        return reasons

    def read(path: Path) -> Counter[str]:
        return _reasons(pq.read_table(path, columns=["cutout_reason"]))

    entry, found = write_or_take_over(target, name, write, read)
    return entry, dict(found)


def _reasons(table: pa.Table) -> Counter[str]:
    return Counter(reason for reason in table["cutout_reason"].to_pylist() if reason)


def inject_file(name: str, job: Job) -> list[Written]:
    """All stamp files of one manifest file; runs in a Spark task.

    An error that a user should read comes back as a value: Spark would bury it in a stack trace.
    """
    try:
        return list(_inject_file(name, job))
    except DarkHaloScopeError as error:
        return [Written(None, "", 0, {}, error)]


def _inject_file(name: str, job: Job) -> Iterator[Written]:
    tasks = pq.read_table(verified_path(job.manifest, name)).sort_by("brickname")
    stem = PurePosixPath(name).stem.removeprefix("manifest-")
    split = stem.rpartition("-")[0]
    bank = None
    if _names_galaxies(tasks):
        bank = _bank_of(job.survey.model_dump_json(), job.bank_settings, job.bank_sha256)
    bricks = tasks["brickname"].to_numpy()
    names, first, counts = np.unique(bricks.astype(str), return_index=True, return_counts=True)
    places = {str(brick): (int(at), int(rows)) for brick, at, rows in zip(names, first, counts, strict=True)}
    for number, part in enumerate(parts_of(bricks.tolist(), job.settings.rows_per_file)):
        rows_of = {brick: tasks.slice(*places[brick]) for brick in part}
        schema = stamp_schema(job.settings.hard_negatives.extra)
        entry, reasons = write_stamps(
            job.target, f"stamps-{stem}-{number:03d}.parquet", _stamps(rows_of, job, bank), schema
        )
        rows = sum(places[brick][1] for brick in part)
        yield Written(entry, split, rows, reasons)


def _stamps(rows_of: Mapping[str, pa.Table], job: Job, bank: SourceBank | None) -> Iterator[pa.Table]:
    """The stamps of these bricks' rows, a few at a time."""
    missing = {item["brickname"] for item in job.coadds.facts["missing"]}
    settings = job.manifest_settings
    for brick, rows in rows_of.items():
        with nullcontext() if brick in missing else load_brick(job.coadds, brick) as coadds:
            yield from inject_rows(rows.take(pa.array(host_order(rows, coadds))), coadds, bank, job.settings, settings)


@lru_cache(maxsize=1)
def _bank_of(survey: str, settings: SourceBankSettings, sha256: tuple[tuple[str, str], ...]) -> SourceBank:
    """A process that injects one manifest file after the other keeps the galaxies that it has read."""
    return open_survey_bank(SurveyDescription.model_validate_json(survey), settings, dict(sha256))


def _names_galaxies(tasks: pa.Table) -> bool:
    return bool(pc.any(pc.equal(tasks["source_mode"], "image")).as_py())
