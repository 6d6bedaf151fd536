"""Measures every galaxy of the survey's source bank, and says which ones are fit to be lensed.

    survey.json -> sources.json, `sources.parquet`, one row a galaxy in order of source_id

Columns: source_id (IDENT, or meta/index of an HDF5 bank, as text), usable, reason (null where usable), split (by a hash
of the IDENT: a galaxy is in one split only), half_light_arcsec (measured on the image as it is rendered),
catalogue_half_light_arcsec and magnitude (null where the bank gives none), file and place (HDU or row) of the image.
A galaxy without light above the noise, unreadable, or of another size than its catalogue says keeps its row.
"""

import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.splits import SPLITS, split_of_key
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError
from dark_halo_scope.core.files import sha256_bytes, sha256_file
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.core.process import die_with_parent
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.injection.source_config import SourceBankSettings, SourceCheckSettings
from dark_halo_scope.injection.sources import BankFile, SourceBank, open_survey_bank
from dark_halo_scope.survey.description import SurveyDescription, load_survey

logger = logging.getLogger(__name__)

KIND = "sources"
MODULE = "dark_halo_scope.injection.measure_sources"
ROWS = "sources.parquet"

SCHEMA = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("usable", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("half_light_arcsec", pa.float64()),
        pa.field("catalogue_half_light_arcsec", pa.float64()),
        pa.field("magnitude", pa.float64()),
        pa.field("file", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
    ]
)

# Rows of one unit of work: neighbours lie in the same file, and progress moves.
_CHUNK_ROWS = 50
_PERCENTILES = (5, 16, 50, 84, 95)

Measured = tuple[int, float | None, str | None]  # row, half-light radius (arcsec), why there is none


def measure(file: BankFile, rows: Iterable[int]) -> list[Measured]:
    """Half-light radii of some galaxies of a bank, each read once.

    Raises:
        CorruptDataError, StorageError: a whole file of the bank is missing, changed or out of reach.
    """
    measured: list[Measured] = []
    for row in rows:
        try:
            measured.append((row, file.read(row).half_light_radius, None))
        except ValueError as error:
            measured.append((row, None, str(error)))
    return measured


def judged(file: BankFile, measured: Iterable[Measured], settings: SourceCheckSettings) -> pa.Table:
    """The rows of `SCHEMA`, in order of IDENT, from what `measure` gave for every galaxy."""
    records = []
    for row, radius, reason in sorted(measured, key=lambda item: int(file.idents[item[0]])):
        catalogue = _known(file.half_light_arcsec[row])
        if radius is not None and not (np.isfinite(radius) and radius > 0):
            radius, reason = None, "no measurable size"
        if radius is not None and catalogue is not None:
            if radius < settings.min_radius_ratio * catalogue:
                reason = "half-light radius far below the catalogue's"
            elif radius > settings.max_radius_ratio * catalogue:
                reason = "half-light radius far above the catalogue's"
        ident = int(file.idents[row])
        records.append(
            {
                "source_id": str(ident),
                "usable": reason is None,
                "reason": reason,
                "split": split_of_key(f"source_{ident}", settings.split_seed),
                "half_light_arcsec": radius,
                "catalogue_half_light_arcsec": catalogue,
                "magnitude": _known(file.magnitudes[row]),
                "file": file.file_names[row],
                "place": int(file.places[row]),
            }
        )
    return pa.Table.from_pylist(records, schema=SCHEMA)


def check_usable(table: pa.Table, settings: SourceCheckSettings, where: str) -> Counter[str]:
    """How many galaxies are unusable, by reason.

    Raises:
        BadInputError: more than the settings allow.
    """
    reasons = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
    unusable = sum(reasons.values())
    if unusable > settings.max_unusable_fraction * table.num_rows:
        reason, count = reasons.most_common(1)[0]
        raise BadInputError(
            f"{unusable} of the {table.num_rows} galaxies of source bank {where} are unusable, more than the "
            f"{settings.max_unusable_fraction:.0%} that max_unusable_fraction allows; most often ({count}): {reason}. "
            "Mend the bank, or change the limits."
        )
    return reasons


def radius_ratios(table: pa.Table) -> dict[str, float] | None:
    """Percentiles of measured over catalogued half-light radius; None where the bank gives no radii."""
    measured, catalogue = (
        table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("half_light_arcsec", "catalogue_half_light_arcsec")
    )
    ratios = (measured / catalogue)[np.isfinite(measured) & np.isfinite(catalogue)]
    if not len(ratios):
        return None
    return {f"p{p:02d}": float(np.percentile(ratios, p)) for p in _PERCENTILES}


def bank_checksums(file: BankFile) -> dict[str, str]:
    """SHA-256 of every file of a bank, by name."""
    return {name: sha256_file(path) for name, path in sorted(file.files().items())}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@lru_cache(maxsize=1)
def _bank_of(survey: str, settings: SourceBankSettings) -> SourceBank:
    return open_survey_bank(SurveyDescription.model_validate_json(survey), settings)


def _measure_rows(survey: str, settings: SourceBankSettings, rows: range) -> list[Measured]:
    """One unit of work; in a process of its own it keeps the bank open."""
    return measure(_bank_of(survey, settings).file, rows)


def _chunks(survey: SurveyDescription, bank: SourceBank, settings: SourceBankSettings, processes: int) -> Iterator:
    chunks = [range(start, min(start + _CHUNK_ROWS, len(bank))) for start in range(0, len(bank), _CHUNK_ROWS)]
    if processes == 1:
        yield from (measure(bank.file, rows) for rows in chunks)
        return
    work = partial(_measure_rows, survey.model_dump_json(), settings)
    # Spawned, not forked: HDF5's state does not survive a fork.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=die_with_parent) as pool:
            yield from pool.map(work, chunks)
    except BrokenProcessPool as error:
        raise DarkHaloScopeError(
            "A process that measures sources was killed, most likely for memory; ask for fewer with --processes."
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `measure_sources`."""
    parser = argument_parser("Measure every galaxy of the source bank, and say which ones are fit to be lensed.")
    parser.add_argument("--survey", type=Path, required=True, help="survey.json, whose file `sources` is the bank")
    parser.add_argument("--output", type=Path, required=True, help="sources.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="that measure at once")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, SourceCheckSettings)
    survey = load_survey(args.survey)
    with attempt(args.output, KIND, MODULE, settings, [args.survey], args.data_root) as work:
        bank = open_survey_bank(survey, settings.bank)
        measured: list[Measured] = []
        with Progress(len(bank), "Measuring source galaxies") as progress:
            for chunk in _chunks(survey, bank, settings.bank, args.processes):
                measured += chunk
                progress.advance(len(chunk))
        table = judged(bank.file, measured, settings)
        reasons = check_usable(table, settings, survey.files.sources)
        pq.write_table(table, work.prefix / ROWS, compression="zstd")
        usable = table.filter(table["usable"])["split"].to_pylist()
        checksums = bank_checksums(bank.file)
        work.publish(
            rows_out=table.num_rows,
            columns={field.name: str(field.type) for field in SCHEMA},
            facts={
                "settings": settings.model_dump(mode="json"),
                "bank": {
                    "uri": survey.files.sources,
                    "format": bank.file.format,
                    "bands": bank.file.bands,
                    "galaxies": len(bank),
                    "sha256": sha256_bytes(json.dumps(checksums).encode()),  # wherever the bank lies
                    "files": checksums,
                },
                "splits": {split: usable.count(split) for split in SPLITS},
                "unusable": dict(sorted(reasons.items())),
                "radius_ratio": radius_ratios(table),
            },
        )
        logger.info("%d of %d source galaxies are usable; the rest: %s", len(usable), len(bank), dict(reasons))


if __name__ == "__main__":
    run(main)
