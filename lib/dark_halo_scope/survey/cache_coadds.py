"""Makes the coadds of a dataset's bricks available on this machine, each file checked and recorded by checksum.

Files of a local tree stay where they are; those behind S3 or HTTP are downloaded below `--cache`, where a later run
finds them again. What is damaged is fetched again, then listed.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core import storage
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.files import has_sha256
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, object_list, verified_path, verified_paths
from dark_halo_scope.core.process import die_with_parent
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.config import CoaddSettings
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.names import BANDS, CoaddLayout, checked_brickname, coadd_file, products
from dark_halo_scope.survey.verify import CoaddCheck, check_coadd

MODULE = "dark_halo_scope.survey.cache_coadds"
KIND = "coadds"
FILES = "files.parquet"
FILES_SCHEMA = pa.schema(
    [
        pa.field("brickname", pa.string(), nullable=False),
        pa.field("product", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("finite_fraction", pa.float64(), nullable=False),
        pa.field("zero_fraction", pa.float64(), nullable=False),
    ]
)
_DOWNLOADS = 8
_ROW_GROUP = 10_000

_logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where a brick's files come from and where they must lie; what a worker needs."""

    root: str
    layout: CoaddLayout
    cache: str | None
    """Directory for downloads; None reads the files in place."""
    settings: CoaddSettings
    checksums: Mapping[str, str]
    """SHA-256 by path below `root`, where the survey itself says it."""


class BrickFiles(NamedTuple):
    """One brick: its checked files, or why it cannot be used."""

    brickname: str
    files: tuple[tuple[str, str, CoaddCheck], ...]
    """(product, path, check)."""
    problem: tuple[str, str] | None
    """(product, reason)."""


def cache_brick(brickname: str, source: Source) -> BrickFiles:
    """Fetch (unless it is there) and check every file of a brick."""
    files = []
    for product in products():
        try:
            path, check = _cache_file(brickname, product, source)
        except (BadInputError, CorruptDataError, StorageError) as error:
            return BrickFiles(brickname, (), (product, str(error)))
        files.append((product, path, check))
    return BrickFiles(brickname, tuple(files), None)


def _cache_file(brickname: str, product: str, source: Source) -> tuple[str, CoaddCheck]:
    name = coadd_file(brickname, product, source.layout)
    uri = storage.join(source.root, name)
    path = uri if source.cache is None else storage.join(source.cache, coadd_file(brickname, product, "cache"))
    local = Path(path)
    tries = 1 if source.cache is None else source.settings.attempts
    for remaining in reversed(range(tries)):
        if source.cache is not None and not local.exists():
            storage.fetch(uri, local)
        elif not local.exists():
            raise BadInputError(f"{path} does not exist.")
        try:
            check = check_coadd(local, brickname, product, source.settings)
            expected = source.checksums.get(name)
            if expected is not None and check.sha256 != expected:
                raise CorruptDataError(f"{path} does not match the checksum of its survey; make the survey again.")
            return path, check
        except CorruptDataError as error:
            if source.cache is not None:
                # So that neither the next try nor the next run takes it for good.
                local.unlink(missing_ok=True)
            if not remaining:
                raise
            _logger.warning("Fetching it again: %s", error)
    raise AssertionError("unreachable: the last try returns or raises")


def bricknames_of(manifest: Manifest) -> list[str]:
    """Sorted names of the bricks in the `brickname` column of a manifest's Parquet files.

    Raises:
        BadInputError: no such column, or a name that is none.
    """
    names: set[str] = set()
    for path in verified_paths(manifest):
        if "brickname" not in pq.read_schema(path).names:
            raise BadInputError(f"{path} has no brickname column; give a dataset's manifest.json.")
        names.update(pc.unique(pq.read_table(path, columns=["brickname"])["brickname"]).to_pylist())
    return [checked_brickname(name) for name in sorted(names)]


def cache_bricks(bricknames: Sequence[str], source: Source, workers: int) -> list[BrickFiles]:
    """`cache_brick` for many bricks at once, in their order.

    Checking is work for processes; downloads share one process, in which requests to one host take turns.
    """
    work = partial(cache_brick, source=source)
    with Progress(len(bricknames), "coadds of bricks") as progress:
        if source.cache is None and (workers == 1 or len(bricknames) < 4):
            return list(_counted(map(work, bricknames), progress))
        pool: Executor
        if source.cache is None:
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=die_with_parent)
        else:
            pool = ThreadPoolExecutor(_DOWNLOADS)
        with pool:
            return list(_counted(pool.map(work, bricknames), progress))


def _counted(results: Iterable[BrickFiles], progress: Progress) -> Iterable[BrickFiles]:
    for result in results:
        yield result
        progress.advance()


def survey_source(survey: SurveyDescription, settings: CoaddSettings, cache: Path) -> Source:
    """Where this survey's coadds come from."""
    root = storage.normalise(survey.files.coadds)
    checksums = {}
    if survey.embedded:
        prefix = f"{root.removeprefix(survey.manifest.uri).lstrip('/')}/"
        checksums = {
            entry.name.removeprefix(prefix): entry.sha256
            for entry in object_list(survey.manifest)
            if entry.name.startswith(prefix)
        }
    return Source(
        root=root,
        layout=survey.coadd_layout,
        cache=None if storage.is_local(root) else str(cache),
        settings=settings,
        checksums=checksums,
    )


def cache_coadds(
    survey_path: Path, manifest_path: Path, output: Path, settings: CoaddSettings, cache: Path, workers: int
) -> Manifest:
    """Make and publish coadds.json.

    Raises:
        BadInputError: more bricks than `max_missing_fraction` cannot be had; what was downloaded stays for a later run.
    """
    survey = load_survey(survey_path)
    source = survey_source(survey, settings, cache)
    bricknames = bricknames_of(load_manifest(manifest_path))
    with attempt(output, KIND, MODULE, settings, [survey_path, manifest_path]) as work:
        bricks = cache_bricks(bricknames, source, workers)
        missing = [
            {"brickname": b.brickname, "product": b.problem[0], "reason": b.problem[1]} for b in bricks if b.problem
        ]
        for item in missing:
            _logger.warning("Brick %(brickname)s cannot be used: %(reason)s", item)
        if len(missing) > settings.max_missing_fraction * len(bricks):
            raise BadInputError(
                f"{len(missing)} of {len(bricks)} bricks cannot be used and {settings.max_missing_fraction:.2%} may be "
                f"missing; the first is {missing[0]['brickname']} ({missing[0]['reason']})"
            )
        table = _files_table(bricks)
        pq.write_table(table, work.prefix / FILES, row_group_size=_ROW_GROUP, compression="zstd")
        return work.publish(
            rows_in=len(bricks),
            rows_out=len(bricks) - len(missing),
            rows_quarantined=len(missing),
            columns={field.name: str(field.type) for field in table.schema},
            facts={
                "layout": survey.coadd_layout if source.cache is None else "cache",
                "root": source.root if source.cache is None else source.cache,
                "in_place": source.cache is None,
                "bands": list(BANDS),
                "pixels": settings.pixels,
                "missing": missing,
                "psfsize": _psfsize_facts(table),
            },
        )


def _files_table(bricks: Iterable[BrickFiles]) -> pa.Table:
    rows = [
        {"brickname": b.brickname, "product": product, "path": path, **check._asdict()}
        for b in bricks
        for product, path, check in b.files
    ]
    return pa.Table.from_pylist(rows, schema=FILES_SCHEMA)


def _psfsize_facts(table: pa.Table) -> dict[str, object]:
    """Where psfsize is 0 or NaN: pixels without an exposure, or a whole band, into which nothing can be injected."""
    rows = table.filter(pc.starts_with(table["product"], "psfsize")).to_pylist()
    bad = [(row["brickname"], row["product"], 1 - row["finite_fraction"] + row["zero_fraction"]) for row in rows]
    return {
        "bricks_with_some_zero_or_nan": len({name for name, _, fraction in bad if fraction > 0}),
        "unusable": [f"{name} {product}" for name, product, fraction in bad if fraction >= 1],
    }


def load_brick(coadds: Path | Manifest, brickname: str) -> BrickCoadds:
    """Open the coadds of one brick; each file's checksum is compared on first use in this process.

    Args:
        coadds: coadds.json, or its manifest already loaded.

    Raises:
        BadInputError: the brick is not in the manifest.
        CorruptDataError: a file changed since it was recorded; the sentence names it.
    """
    manifest = _loaded(coadds) if isinstance(coadds, Path) else coadds
    files = verified_path(manifest, FILES)
    rows = pq.read_table(files, filters=[("brickname", "=", brickname)]).to_pylist()
    if not rows:
        known = [item["reason"] for item in manifest.facts["missing"] if item["brickname"] == brickname]
        why = f": {known[0]}" if known else "; cache the coadds of this dataset again."
        raise BadInputError(f"Brick {brickname} is not among the cached coadds{why}")
    paths = {}
    for row in rows:
        path = Path.cwd() / storage.local_path(row["path"])
        _check(path, row["bytes"], row["sha256"])
        paths[row["product"]] = path
    return BrickCoadds(paths, brickname)


@cache
def _loaded(path: Path) -> Manifest:
    return load_manifest(path, kind=KIND)


def _check(path: Path, size: int, sha256: str) -> None:
    try:
        unchanged = path.stat().st_size == size and has_sha256(path, sha256)
    except OSError:
        raise CorruptDataError(f"{path} is missing; cache the coadds again.") from None
    if not unchanged:
        raise CorruptDataError(f"{path} has changed since its checksum was recorded; fetch it and cache it again.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--manifest", type=Path, required=True, help="a dataset's manifest.json: the bricks it needs")
    parser.add_argument("--output", type=Path, required=True, help="coadds.json")
    parser.add_argument("--cache", type=Path, help="where downloads go (default: coadd_cache beside the output)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="bricks checked at once")
    arguments = parser.parse_args(argv)
    cache_coadds(
        arguments.survey,
        arguments.manifest,
        arguments.output,
        load_settings(arguments.settings, CoaddSettings),
        arguments.cache or arguments.output.parent / "coadd_cache",
        arguments.workers,
    )


if __name__ == "__main__":
    run(main)
