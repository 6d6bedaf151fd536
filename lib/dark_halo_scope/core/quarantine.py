"""Rows that are dropped are kept aside with the reason, and in = out + quarantined."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import atomic_path

DIRECTORY = "quarantine"
REASON = "quarantine_reason"

# Above this fraction of bad rows the input is wrong, not a few of its rows.
LIMIT = 0.001


def split_rows(table: pa.Table, reasons: Sequence[str | None]) -> tuple[pa.Table, pa.Table]:
    """Rows to keep, and rows to quarantine with their reason in the column `quarantine_reason`.

    Args:
        table: N rows.
        reasons: N reasons; None or an empty string keeps the row.

    Raises:
        ValueError: the lengths differ.
    """
    if len(reasons) != table.num_rows:
        raise ValueError(f"{len(reasons)} reasons for {table.num_rows} rows")
    column = pa.array([reason or None for reason in reasons], pa.string())
    bad = pc.is_valid(column)
    return table.filter(pc.invert(bad)), table.append_column(REASON, column).filter(bad)


def write_quarantine(prefix: Path, name: str, table: pa.Table) -> Path | None:
    """Write quarantined rows to `<prefix>/quarantine/<name>.parquet`; without rows, nothing is written.

    Raises:
        ValueError: the table lacks the column `quarantine_reason`.
    """
    if REASON not in table.column_names:
        raise ValueError(f"Quarantined rows need the column {REASON}")
    if table.num_rows == 0:
        return None
    path = Path(prefix) / DIRECTORY / f"{name}.parquet"
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return path


def check_balance(rows_in: int, rows_out: int, rows_quarantined: int, where: str = "This step") -> None:
    """Nothing is lost: rows in = rows out + rows quarantined.

    Raises:
        BadInputError: it is not so.
    """
    if rows_in != rows_out + rows_quarantined:
        raise BadInputError(
            f"{where} read {rows_in} rows but accounts for {rows_out + rows_quarantined} "
            f"({rows_out} kept, {rows_quarantined} quarantined): rows were lost or doubled; report this as a bug."
        )


def check_fraction(rows_in: int, rows_quarantined: int, limit: float = LIMIT, where: str = "This step") -> None:
    """Bad rows are few.

    Raises:
        BadInputError: more than `limit` (a fraction) of the rows are quarantined.
    """
    if rows_quarantined > limit * rows_in:
        raise BadInputError(
            f"{where} quarantined {rows_quarantined} of {rows_in} rows, more than the limit of {limit:.2%}: "
            f"look at {REASON} in its {DIRECTORY} directory and correct the input."
        )
