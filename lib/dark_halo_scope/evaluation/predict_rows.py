"""Rows of a prediction: observing conditions before scoring, and the output after it. In order, none dropped."""

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.coordinate_list import column_numbers, duplicate_of
from dark_halo_scope.survey.conditions import BrickConditions

OUTSIDE = "outside the survey's bricks"
#: Always in the output; a network's further conditions join them.
REPORTED = ("psfsize_r", "psfdepth_r")
_NAMED = 5  # rows that an error names


@dataclass
class Request:
    """N rows to be scored.

    rows: what the list says, kept in the output.
    label: (N,) what an error calls a row.
    ra, dec: (N,) degrees, NaN where unknown.
    reasons: (N,) why a row cannot be scored, None where it may.
    flags: (N,) what to know of a row that is scored.
    """

    rows: pa.Table
    label: list[str]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    reasons: list[str | None]
    flags: list[list[str]]

    def __len__(self) -> int:
        return self.rows.num_rows


@dataclass(frozen=True)
class Conditions:
    """How the sky was observed in each row.

    brickname: (N,) None where the survey has no such brick.
    values: condition -> (N,) float64, NaN where unknown.
    """

    brickname: list[str | None]
    values: dict[str, NDArray[np.float64]]


def flag_duplicates(request: Request, radius: float) -> None:
    """Say of each position that an earlier row has it too, to `radius` arcsec; it is scored all the same."""
    for index, first in enumerate(duplicate_of(request.ra, request.dec, radius)):
        if first >= 0:
            request.flags[index].append(f"same object as row {first + 1}")


def look_up(
    request: Request, bricks: BrickConditions | None, given: Mapping[str, float], names: Sequence[str]
) -> Conditions:
    """Conditions of each row: the list's own column of that name, else its brick's, else `given`.

    Args:
        request: rows and positions.
        bricks: of the survey; None where there is none.
        given: values for all rows that know nothing better.
        names: conditions wanted.
    """
    known_N = np.isfinite(request.ra)
    brickname: list[str | None] = [None] * len(request)
    values = {name: _plausible(name, column_numbers(request.rows, name)) for name in names}
    if bricks is not None and known_N.any():
        at_K, row_K = bricks.rows_at(request.ra[known_N], request.dec[known_N])
        for index, name, row in zip(np.flatnonzero(known_N), at_K, row_K, strict=True):
            brickname[index] = str(name) if row >= 0 else None
        for name, value_N in values.items():
            if name in bricks.values:
                # Row -1, no such brick, takes the last.
                of_brick_K = np.append(bricks.values[name], np.nan)[row_K]
                value_N[known_N] = np.where(np.isfinite(value_N[known_N]), value_N[known_N], of_brick_K)
    for name, value_N in values.items():
        value_N[~np.isfinite(value_N)] = given.get(name, np.nan)
    return Conditions(brickname, values)


def _plausible(name: str, value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values with NaN where they are none: catalogues write 0 or -99 for what they do not know."""
    return np.where(value_N >= 0 if name == "ebv" else value_N > 0, value_N, np.nan)


def settle_unknown(
    request: Request, conditions: Conditions, meta_columns: Sequence[str], mean: Sequence[float], flag: bool
) -> Conditions:
    """Refuse rows whose conditions the network needs and nobody knows, or flag them and take training's mean.

    Args:
        request: rows; those that cannot be scored anyway are passed over.
        conditions: of `look_up`.
        meta_columns: conditions that the network takes.
        mean: of each in training.
        flag: flag in place of refusing.

    Raises:
        BadInputError: conditions are unknown and `flag` is not set; the sentence names the rows.
    """
    values = {name: value_N.copy() for name, value_N in conditions.values.items()}
    scorable_N = np.array([reason is None for reason in request.reasons], dtype=bool)
    unknown = {name: np.flatnonzero(scorable_N & ~np.isfinite(values[name])) for name in meta_columns}
    rows = sorted({int(index) for found in unknown.values() for index in found})
    if rows and not flag:
        named = ", ".join(request.label[index] for index in rows[:_NAMED])
        missing = " and ".join(name for name, found in unknown.items() if len(found))
        raise BadInputError(
            f"The network needs {missing}, unknown for {len(rows)} of {len(request)} rows ({named}"
            f"{', ...' if len(rows) > _NAMED else ''}): give --survey, columns of these names or --condition "
            "NAME=VALUE, or take training's mean with --unknown-conditions flag."
        )
    for name, training_mean in zip(meta_columns, mean, strict=True):
        values[name][unknown[name]] = training_mean
        for index in unknown[name]:
            request.flags[index].append(f"{name} unknown: training's mean")
    return Conditions(conditions.brickname, values)


def output_table(
    rows: pa.Table,
    conditions: Conditions,
    scores: Mapping[str, NDArray[np.float64]],
    reasons: Sequence[str | None],
    flags: Sequence[Sequence[str]],
) -> pa.Table:
    """Rows as they leave: the list's columns, scores (null where there is none), conditions, `flags` and `reason`."""
    table = rows.drop_columns([name for name in rows.column_names if name in conditions.values])
    added: dict[str, pa.Array] = {name: _nullable(values) for name, values in scores.items()}
    added |= {name: _nullable(values) for name, values in conditions.values.items()}
    added["brickname"] = pa.array(conditions.brickname, pa.string())
    added["flags"] = pa.array(["; ".join(found) or None for found in flags], pa.string())
    added["reason"] = pa.array(list(reasons), pa.string())
    for name, array in added.items():
        table = table.append_column(name, array)
    return table


def refuse_taken_columns(rows: pa.Table, made: Sequence[str], where: str) -> None:
    """A list's column must not have the name of one that is made here.

    Raises:
        BadInputError: it has.
    """
    taken = [name for name in made if name in rows.column_names]
    if taken:
        raise BadInputError(f"{where} has columns named {', '.join(taken)}, which the output has too; rename them.")


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def summary(reasons: Sequence[str | None]) -> str:
    """How many rows were scored, and why the others were not."""
    counts = Counter(reason for reason in reasons if reason is not None)
    left_out = "; ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    total = len(reasons)
    return f"{total - counts.total()} of {total} rows scored" + (f"; others: {left_out}" if left_out else "")


def check_suffix(path: Path) -> None:
    """Refuse an output whose name does not say its format.

    Raises:
        BadInputError: it ends in neither .csv nor .parquet.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise BadInputError(f"The output {path} must end in .csv or .parquet, which says its format.")


class TableWriter:
    """Writes tables of one schema, one after another, as CSV or Parquet; a context manager."""

    def __init__(self, path: Path, parquet: bool) -> None:
        self._path, self._is_parquet = path, parquet
        self._stack = ExitStack()
        self._write: Callable[[pa.Table], None] | None = None

    def write(self, table: pa.Table) -> None:
        """Write the next rows."""
        if self._write is None:
            self._write = self._parquet(table.schema) if self._is_parquet else self._csv(table.column_names)
        self._write(table)

    def _parquet(self, schema: pa.Schema) -> Callable[[pa.Table], None]:
        return self._stack.enter_context(pq.ParquetWriter(self._path, schema, compression="zstd")).write_table

    def _csv(self, names: Sequence[str]) -> Callable[[pa.Table], None]:
        # Not Arrow's writer, which puts quotes about all text.
        stream = self._stack.enter_context(self._path.open("w", newline="", encoding="utf-8"))
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        return lambda table: writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
