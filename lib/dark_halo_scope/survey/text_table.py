"""CSV files that users wrote, as text: a header, and as many cells in each row.

Read without Arrow's CSV reader: the threads in which it reads ahead can outlive its error, and then the process aborts
at exit in place of ending with the error's status.
"""

import csv
from pathlib import Path

import pyarrow as pa

from dark_halo_scope.core.errors import BadInputError


def read_text_table(path: Path) -> pa.Table:
    """The rows of a CSV file, every column text as it stands there; empty cells are null, empty lines are no rows.

    Raises:
        BadInputError: there is no such file, or it is no such CSV; the sentence names the line.
    """
    try:
        # A byte order mark is no part of the first name.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            names = next((cells for cells in lines if cells), [])
            rows = []
            for cells in lines:
                if cells and len(cells) != len(names):
                    raise ValueError(f"line {lines.line_num} has {len(cells)} cells, the header {len(names)}")
                rows += [cells] if cells else []
    except FileNotFoundError:
        raise BadInputError(f"{path} does not exist; give a CSV file with the columns ra and dec.") from None
    except (OSError, csv.Error, ValueError) as error:
        raise BadInputError(
            f"{path} cannot be read as CSV ({error}); give a header and as many cells in each row."
        ) from error
    if not names:
        raise BadInputError(f"{path} is not a CSV: it is empty; give a header with ra and dec, and rows.")
    if len(set(names)) < len(names):
        raise BadInputError(f"{path} has two columns of one name; rename one.")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table([pa.array([cell or None for cell in column], pa.string()) for column in columns], names)
