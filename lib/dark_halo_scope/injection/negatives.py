"""Galaxies without arcs as stamps: which confusers are drawn, what a row says of them, and what cuts them out.

They pass through the same cutout code as hosts (`inject.cut_host`): another path would leave its own noise texture, by
which a network tells classes apart. Spark's workers import this module by name.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.splits import SPLITS
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError
from dark_halo_scope.core.manifest import Manifest, ObjectEntry, Target, verified_path
from dark_halo_scope.injection.brick_parts import parts_of
from dark_halo_scope.injection.galaxy_rows import HOST_COLUMNS, control_rows, draw_ranks
from dark_halo_scope.injection.inject import host_order, inject_rows
from dark_halo_scope.injection.negative_config import NegativeSettings
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import write_stamps
from dark_halo_scope.survey.cache_coadds import load_brick
from dark_halo_scope.survey.coadds import BrickCoadds

SELECTION_SET = "confusers"


@dataclass(frozen=True)
class Dataset:
    """What negatives take over from the stamps that they join.

    positives: split -> good positives.
    hosts: names of all hosts by `host_names`, sorted, each once; 8 bytes a host.
    """

    positives: Mapping[str, int]
    experiment_id: str
    stamp_size: int
    hosts: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Draw:
    """Confusers that were drawn.

    rows: the confusers' columns and `sampling_weight`; sorted by brick and objid.
    in_dataset: class -> galaxies left out, because they are hosts of the dataset.
    """

    rows: pa.Table
    in_dataset: Mapping[str, int]


@dataclass(frozen=True)
class CutJob:
    """What every unit of work needs; small, and sent to the executors."""

    coadds: Manifest
    settings: StampSettings
    target: Target


@dataclass(frozen=True)
class FileJob:
    """What every file of galaxies needs to be cut out; small, and sent to the executors."""

    galaxies: Manifest
    cut: CutJob


@dataclass(frozen=True)
class Unit:
    """Rows of whole bricks that share an output file."""

    name: str
    rows: pa.Table


@dataclass(frozen=True)
class Cut:
    """One output file, or why there is none."""

    entry: ObjectEntry | None
    rows: int
    reasons: Mapping[str, int]
    error: DarkHaloScopeError | None = None


def host_names(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """(N,) hashes of brick and position to six decimals of a degree (4 mas), as task ids have it."""
    frame = pd.DataFrame({"brick": rows["brickname"].to_pandas()})
    for name in ("ra", "dec"):
        frame[name] = np.rint(rows[name].to_numpy() * 1e6).astype(np.int64)
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), dtype=np.uint64)


def describe_dataset(paths: Sequence[Path]) -> Dataset:
    """Positives, experiment, stamp size and hosts of stamp files, of which one at a time is held.

    Raises:
        BadInputError: no positive, or experiments or stamp sizes differ.
    """
    positives: Counter[str] = Counter()
    kinds: set[tuple[str, int]] = set()
    hosts = [np.empty(0, np.uint64)]
    names = ["split", "is_control", "cutout_ok", "experiment_id", "stamp_size", "brickname", "ra", "dec"]
    for path in paths:
        table = pq.read_table(path, columns=names)
        hosts.append(np.unique(host_names(table)))
        good = table.filter(pc.and_(pc.equal(table["is_control"], 0), pc.equal(table["cutout_ok"], 1)))
        positives.update(good["split"].to_pylist())
        unique = good.select(["experiment_id", "stamp_size"]).group_by(["experiment_id", "stamp_size"]).aggregate([])
        kinds.update((row["experiment_id"], row["stamp_size"]) for row in unique.to_pylist())
    if len(kinds) != 1:
        raise BadInputError(
            f"These stamps have {len(kinds)} kinds of experiment and size where negatives can join one; "
            "give the stamps of one dataset that has positives."
        )
    return Dataset(positives, *kinds.pop(), np.unique(np.concatenate(hosts)))


def draw_confusers(paths: Sequence[Path], bricks: frozenset[str], dataset: Dataset, settings: NegativeSettings) -> Draw:
    """Draw galaxies of each class and split by a hash of their names: the same whatever file they lie in.

    Hosts of the dataset, of positives and of controls, are left out: a galaxy that is in both classes teaches a network
    nothing, or the noise of its pixels.

    Args:
        paths: files of confusers; one at a time is held, and of the others only what is still in the draw.
        bricks: names of the bricks that stamps can be cut from.
        dataset: that the negatives join.
        settings: classes and numbers.

    Returns:
        Those drawn; `sampling_weight` is the number of the class's galaxies, the dataset's hosts left out, for each.
    """
    found: Counter[tuple[str, str]] = Counter()
    in_dataset: Counter[str] = Counter()
    held: pa.Table | None = None
    for path in paths:
        table = pq.read_table(path, columns=[*HOST_COLUMNS, "confuser", "release"])
        table = table.filter(pc.is_in(table["brickname"], pa.array(sorted(bricks), pa.string())))
        table = table.filter(pc.is_in(table["confuser"], pa.array(settings.classes, pa.string())))
        known = np.isin(host_names(table), dataset.hosts)
        in_dataset.update(table.filter(pa.array(known))["confuser"].to_pylist())
        table = table.filter(pa.array(~known))
        found.update(zip(table["confuser"].to_pylist(), table["split"].to_pylist(), strict=True))
        rank = draw_ranks(table, settings.seed)
        table = table.append_column("_rank", pa.array(rank))
        held = _first_of_each(table if held is None else pa.concat_tables([held, table]), dataset, settings)
    if held is None:
        raise BadInputError("The confusers' manifest names no Parquet file; select them again.")
    keys = list(zip(held["confuser"].to_pylist(), held["split"].to_pylist(), strict=True))
    drawn = Counter(keys)
    weights = pa.array([found[key] / drawn[key] for key in keys], pa.float64())
    held = held.drop_columns(["_rank"]).append_column("sampling_weight", weights)
    rows = held.sort_by([("brickname", "ascending"), ("objid", "ascending"), ("release", "ascending")])
    return Draw(rows, dict(in_dataset))


def _first_of_each(table: pa.Table, dataset: Dataset, settings: NegativeSettings) -> pa.Table:
    parts = [table.slice(0, 0)]
    for name in settings.classes:
        of_class = table.filter(pc.equal(table["confuser"], name))
        for split in SPLITS:
            here = of_class.filter(pc.equal(of_class["split"], split)).sort_by("_rank")
            parts.append(here.slice(0, wanted(split, dataset, settings)))
    return pa.concat_tables(parts)


def wanted(split: str, dataset: Dataset, settings: NegativeSettings) -> int:
    """How many galaxies of each class a split gets."""
    if settings.per_class is not None:
        return settings.per_class.get(split, 0)  # type: ignore[call-overload]
    assert settings.share_of_positives is not None
    return round(settings.share_of_positives * dataset.positives.get(split, 0))


def negative_rows(confusers: pa.Table, dataset: Dataset) -> pa.Table:
    """Rows as an injection manifest has them for controls, with `control_kind`, one per drawn galaxy."""
    return control_rows(confusers, confusers["confuser"], SELECTION_SET, dataset.experiment_id, dataset.stamp_size)


def units(rows: pa.Table, rows_per_file: int, prefix: str = "negatives") -> Iterator[Unit]:
    """Output files, `{prefix}-{split}-{number}`: whole bricks of a split, full once they have `rows_per_file` rows."""
    for split in SPLITS:
        of_split = rows.filter(pc.equal(rows["split"], split))
        for number, bricks in enumerate(parts_of(of_split["brickname"].to_pylist(), rows_per_file)):
            here = of_split.filter(pc.is_in(of_split["brickname"], pa.array(bricks, pa.string())))
            yield Unit(f"{prefix}-{split}-{number:04d}.parquet", here)


def cut_unit(unit: Unit, job: CutJob) -> Cut:
    """Cut out the galaxies of some bricks; runs in a Spark task.

    A galaxy whose cutout fails keeps its row, with the reason and without a stamp. An error that a user should read
    comes back as a value: Spark would bury it in a stack trace.
    """
    schema = stamp_schema(job.settings.hard_negatives.extra)
    return write_unit(unit, job.target, schema, _stamps(unit.rows, job))


def write_unit(unit: Unit, target: Target, schema: pa.Schema, stamps: Iterable[pa.Table]) -> Cut:
    """Write a unit's stamps as they come; an error that a user should read comes back as a value."""
    try:
        entry, reasons = write_stamps(target, unit.name, stamps, schema)
    except DarkHaloScopeError as error:
        return Cut(None, 0, {}, error)
    return Cut(entry, unit.rows.num_rows, reasons)


def cut_file(name: str, job: FileJob) -> list[Cut]:
    """Cut out the galaxies of one file; runs in a Spark task."""
    return cut_units(name, job.galaxies, job.cut.settings.rows_per_file, partial(cut_unit, job=job.cut))


def cut_units(name: str, galaxies: Manifest, rows_per_file: int, cut: Callable[[Unit], Cut]) -> list[Cut]:
    """What `cut` makes of the units of one file of galaxies, up to the first error.

    An error that a user should read comes back as a value: Spark would bury it in a stack trace.
    """
    try:
        rows = pq.read_table(verified_path(galaxies, name))
    except DarkHaloScopeError as error:
        return [Cut(None, 0, {}, error)]
    cuts: list[Cut] = []
    for unit in units(rows, rows_per_file, f"stamps-{PurePosixPath(name).stem}"):
        cuts.append(cut(unit))
        if cuts[-1].error is not None:
            break
    return cuts


def open_bricks(rows: pa.Table, coadds: Manifest) -> Iterator[tuple[pa.Table, BrickCoadds | None]]:
    """Rows of one brick after the other, in `host_order`, and its open coadds; None where they are not to be had."""
    missing = {item["brickname"] for item in coadds.facts["missing"]}
    for brick in sorted(set(rows["brickname"].to_pylist())):
        here = rows.filter(pc.equal(rows["brickname"], brick))
        with nullcontext() if brick in missing else load_brick(coadds, brick) as opened:
            yield here.take(pa.array(host_order(here, opened))), opened


def _stamps(rows: pa.Table, job: CutJob) -> Iterator[pa.Table]:
    for here, coadds in open_bricks(rows, job.coadds):
        yield from inject_rows(here, coadds, None, job.settings, None)
