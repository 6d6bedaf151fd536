"""Small CSV files that evaluation wrote, as columns."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The named columns of a CSV file with a header; cells are text, and empty where nothing is known.

    Raises:
        BadInputError: the file is missing or lacks one of the columns.
    """
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in names if name not in (reader.fieldnames or [])]
            if missing:
                raise BadInputError(f"{path} lacks the columns {', '.join(missing)}; make it again.")
            rows = list(reader)
    except FileNotFoundError:
        raise BadInputError(f"{path} does not exist; ask Snakemake for it.") from None
    return {name: [row[name] or "" for row in rows] for name in names}


def numbers(path: Path, name: str, cells: Sequence[str]) -> NDArray[np.float64]:
    """(N,) numbers of a column, NaN where a cell is empty.

    Raises:
        CorruptDataError: a cell is no number.
    """
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    except ValueError as error:
        raise CorruptDataError(f"The column {name} of {path} holds something else than numbers ({error}).") from None


def flags(cells: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether a cell says true, in whatever case; empty is false."""
    return np.array([cell.strip().lower() in {"true", "1"} for cell in cells], dtype=np.bool_)
