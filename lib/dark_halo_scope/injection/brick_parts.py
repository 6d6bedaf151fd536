"""Rows of a table to files of whole bricks, so that the coadds of a brick are opened once."""

from collections import Counter
from collections.abc import Sequence


def parts_of(bricks: Sequence[str], rows_per_file: int) -> list[list[str]]:
    """Whole bricks, in order of name, to parts that are full once they have `rows_per_file` rows.

    Args:
        bricks: the brick of every row.
    """
    parts: list[list[str]] = []
    held = rows_per_file
    for brick, count in sorted(Counter(bricks).items()):
        if held >= rows_per_file:
            parts.append([])
            held = 0
        parts[-1].append(brick)
        held += count
    return parts
