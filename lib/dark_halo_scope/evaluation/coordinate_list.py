"""A user's list of positions: read as it is, checked row by row, nothing dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.catalogue.crossmatch import groups_within
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.cutout_service import position_reason
from dark_halo_scope.survey.text_table import read_text_table

NOT_A_NUMBER = "position is not a number in degrees"


@dataclass(frozen=True)
class CoordinateList:
    """N rows of a list.

    rows: the columns as they were, text; empty cells are null.
    ra, dec: (N,) degrees, NaN where `reasons` says that the row has no valid position.
    reasons: (N,) why a row cannot be scored, None where it may.
    """

    rows: pa.Table
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    reasons: list[str | None]


def read_coordinates(path: Path) -> CoordinateList:
    """Read a CSV file with a header and the columns ra and dec (degrees, ICRS; in any case), among any others.

    Raises:
        BadInputError: not such a file, or without rows.
    """
    rows = read_text_table(path)
    columns = [_find(rows.column_names, name, path) for name in ("ra", "dec")]
    if not rows.num_rows:
        raise BadInputError(f"{path} has no rows; give at least one position.")
    ra_N, dec_N = (_numbers(rows[name].to_pylist()) for name in columns)
    reasons = [
        position_reason(ra, dec) if np.isfinite([ra, dec]).all() else NOT_A_NUMBER
        for ra, dec in zip(ra_N, dec_N, strict=True)
    ]
    valid_N = np.array([reason is None for reason in reasons])
    return CoordinateList(rows, np.where(valid_N, ra_N, np.nan), np.where(valid_N, dec_N, np.nan), reasons)


def _find(names: Sequence[str], wanted: str, path: Path) -> str:
    found = [name for name in names if name.strip().lower() == wanted]
    if len(found) != 1:
        what = "lacks the column" if not found else "has more than one column"
        raise BadInputError(f"{path} {what} {wanted} (it has {', '.join(names)}); name the positions ra and dec.")
    return found[0]


def _numbers(texts: Sequence[str | None]) -> NDArray[np.float64]:
    values = np.full(len(texts), np.nan)
    for index, text in enumerate(texts):
        try:
            values[index] = float(text) if text is not None else np.nan
        except ValueError:
            continue
    return values


def column_numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """(N,) numbers of a column of text, NaN where a cell holds none or the column is not there."""
    return _numbers(rows[name].to_pylist()) if name in rows.column_names else np.full(rows.num_rows, np.nan)


def duplicate_of(ra: NDArray[np.float64], dec: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """(N,) row of the first position of the same object, -1 where a position is the first of its own.

    Args:
        ra, dec: (N,) degrees, NaN where there is no position.
        radius: arcsec; objects are linked by steps of at most this.
    """
    known_K = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    first_N = np.full(len(ra), -1, dtype=np.int64)
    if not len(known_K):
        return first_N
    group_K = groups_within(ra[known_K], dec[known_K], radius)
    _, first_G = np.unique(group_K, return_index=True)
    first_K = known_K[first_G][group_K]
    first_N[known_K] = np.where(first_K == known_K, -1, first_K)
    return first_N
