"""Scores of a Parquet manifest as columns of numbers: ten million rows take less than a gigabyte.

Scores are read some rows at a time. What is text becomes a code as it is read; hosts become numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, verified_paths

KIND = "scores"
POSITIVE, CONTROL, HARD_NEGATIVE, NEGATIVE = range(4)
KINDS = ("positive", "control", "hard_negative", "negative")

_BATCH_ROWS = 200_000
#: Object ids fill the low bits of a key, bricks the high ones.
_OBJID_BITS = 32
#: Positions are told apart to six decimals of a degree, as task ids have them.
_STEPS_PER_DEGREE = 1_000_000

Numbers = NDArray[np.float32]
Progressed = Callable[[int], None]


@dataclass(frozen=True)
class ScoreTable:
    """N scored images.

    score: (N,) float64 in [0, 1].
    kind: (N,) index into KINDS.
    host: (N,) number of the galaxy, from 0.
    repeated: (N,) whether the image is the control of a galaxy that a row before has already: a galaxy that bears
        several arcs is scored once for each of them, with the same pixels, and counts as one negative.
    galaxy: (N,) brick and object id in one number, below 0 where there is no object id.
    bricks: names of bricks, in the order of their codes in `galaxy`.
    numbers: further columns by name, (N,) float32, NaN where unknown.
    labels: text columns by name, as (N,) codes, -1 where null, and what the codes mean.
    """

    score: NDArray[np.float64]
    kind: NDArray[np.int8]
    host: NDArray[np.int32]
    repeated: NDArray[np.bool_]
    galaxy: NDArray[np.int64]
    bricks: Mapping[str, int]
    numbers: Mapping[str, Numbers]
    labels: Mapping[str, tuple[NDArray[np.int16], tuple[str, ...]]]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: NDArray[np.integer]) -> "ScoreTable":
        """These rows, in this order."""
        return ScoreTable(
            self.score[index],
            self.kind[index],
            self.host[index],
            self.repeated[index],
            self.galaxy[index],
            self.bricks,
            {name: values[index] for name, values in self.numbers.items()},
            {name: (codes[index], names) for name, (codes, names) in self.labels.items()},
        )


def read_scores(
    manifest: Manifest,
    numbers: Sequence[str] = (),
    labels: Sequence[str] = (),
    advance: Progressed = lambda count: None,
) -> ScoreTable:
    """The scores of a manifest, with those of the columns `numbers` and `labels` that there are.

    Raises:
        BadInputError: there are no rows.
        CorruptDataError: a score is not in [0, 1], or a kind is unknown.
    """
    paths = verified_paths(manifest)
    total = sum(pq.read_metadata(path).num_rows for path in paths)
    if not total:
        raise BadInputError(f"{manifest.uri} holds no scores; score a split that has images.")
    columns = set(pq.read_schema(paths[0]).names)
    score, kind = np.empty(total), np.empty(total, np.int8)
    galaxy = np.empty(total, np.int64)
    values = {name: np.empty(total, np.float32) for name in numbers if name in columns}
    coded = {name: (np.empty(total, np.int16), dict[str, int]()) for name in labels if name in columns}
    bricks: dict[str, int] = {}
    start = 0
    wanted = {"score", "kind", "brickname", "objid", "ra", "dec", *values, *coded} & columns
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(wanted)):
                part = slice(start, start + len(batch))
                score[part] = _column(batch, "score")
                kind[part] = _kinds(batch, path)
                galaxy[part] = _galaxies(batch, bricks)
                for name, into in values.items():
                    into[part] = _column(batch, name)
                for name, (codes, known) in coded.items():
                    codes[part] = _codes(batch.column(name), known)
                start += len(batch)
                advance(len(batch))
    if not ((score >= 0) & (score <= 1)).all():
        raise CorruptDataError(f"{manifest.uri} holds scores that are not between 0 and 1; score the images again.")
    names, host = np.unique(galaxy, return_inverse=True)
    return ScoreTable(
        score,
        kind,
        host.astype(np.int32),
        _repeated(kind, host, len(names)),
        galaxy,
        bricks,
        values,
        {name: (codes, tuple(known)) for name, (codes, known) in coded.items()},
    )


def galaxy_facts(table: ScoreTable, catalogue: Manifest, columns: Sequence[str]) -> dict[str, Numbers]:
    """Numbers of a catalogue of galaxies for each row of a score table, by brick and object id.

    Args:
        table: N scores.
        catalogue: Parquet files with `brickname`, `objid` and `columns`.
        columns: of the catalogue.

    Returns:
        By name, (N,) float32; NaN for galaxies that the catalogue does not have.
    """
    wanted = np.unique(table.galaxy[table.galaxy >= 0])
    found = {name: np.full(len(wanted), np.nan, np.float32) for name in columns}
    for path in verified_paths(catalogue):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["brickname", "objid", *columns]):
                brick = _codes(batch.column("brickname"), table.bricks, grow=False)
                key = _key(brick, np.asarray(batch.column("objid"), dtype=np.int64))
                place = np.minimum(np.searchsorted(wanted, key), max(0, len(wanted) - 1))
                known = (brick >= 0) & (wanted[place] == key) if len(wanted) else np.zeros(len(key), bool)
                for name, into in found.items():
                    into[place[known]] = _column(batch, name)[known]
    place = np.searchsorted(wanted, table.galaxy)
    has_id = table.galaxy >= 0
    facts = {}
    for name, values in found.items():
        facts[name] = np.full(len(table), np.nan, np.float32)
        facts[name][has_id] = values[place[has_id]]
    return facts


def _column(batch: pa.RecordBatch, name: str) -> NDArray[np.floating]:
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)


def _kinds(batch: pa.RecordBatch, path: Path) -> NDArray[np.int8]:
    known = {name: code for code, name in enumerate(KINDS)}
    codes = _codes(batch.column("kind"), known, grow=False)
    if (codes < 0).any():
        raise CorruptDataError(f"{path} has a kind of image that is none of {', '.join(KINDS)}; score them again.")
    return codes.astype(np.int8)


def _codes(values: pa.Array, known: Mapping[str, int] | dict[str, int], grow: bool = True) -> NDArray[np.int32]:
    """Codes of texts; -1 for null and, unless `known` grows, for what it does not have."""
    encoded = values.dictionary_encode() if not pa.types.is_dictionary(values.type) else values
    if grow and isinstance(known, dict):
        for name in encoded.dictionary.to_pylist():
            if name is not None:
                known.setdefault(name, len(known))
    meaning = np.array([known.get(name, -1) for name in encoded.dictionary.to_pylist()] + [-1], dtype=np.int32)
    index = encoded.indices.fill_null(len(meaning) - 1).to_numpy(zero_copy_only=False)
    return meaning[index]


def _key(brick: NDArray[np.integer], objid: NDArray[np.int64]) -> NDArray[np.int64]:
    return (brick.astype(np.int64) << _OBJID_BITS) | objid


def _galaxies(batch: pa.RecordBatch, bricks: dict[str, int]) -> NDArray[np.int64]:
    """Brick and object id as one number; a negative one of the position where there is no object id."""
    code = _codes(batch.column("brickname"), bricks)
    ra, dec = (np.round(_column(batch, name) * _STEPS_PER_DEGREE) for name in ("ra", "dec"))
    place = -1 - (ra.astype(np.int64) * (181 * _STEPS_PER_DEGREE) + (dec + 90 * _STEPS_PER_DEGREE).astype(np.int64))
    if "objid" not in batch.schema.names:
        return place
    objid = batch.column("objid")
    known = np.asarray(objid.is_valid()) & (code >= 0)
    return np.where(known, _key(code, np.asarray(objid.fill_null(0), dtype=np.int64)), place)


def _repeated(kind: NDArray[np.int8], host: NDArray[np.integer], hosts: int) -> NDArray[np.bool_]:
    controls = np.flatnonzero(kind == CONTROL)
    first = np.zeros(hosts, np.int64)
    # Of several writes to one place the last stays: backwards, that of the first row.
    first[host[controls[::-1]]] = controls[::-1]
    repeated = np.zeros(len(kind), bool)
    repeated[controls] = first[host[controls]] != controls
    return repeated
