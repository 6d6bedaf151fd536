"""Gates on counts of whole catalogues: a census has no sampling error, so that no number here has an interval."""

from typing import Any


def gate(value: float, rows: int, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """A number, the limits that it should be in (inclusive, None is open), and whether it is; for JSON.

    Args:
        rows: number of rows that it is of. Without any, nothing was measured and the gate does not pass.
    """
    measured = rows > 0
    return {
        "value": value if measured else None,
        "n": rows,
        "interval": None,
        "status": "measured" if measured else "not measurable: there are no rows",
        "threshold": [low, high],
        "passed": measured and (low is None or value >= low) and (high is None or value <= high),
    }


def share_gate(count: int, rows: int, limits: tuple[float, float]) -> dict[str, Any]:
    """`gate` of the share `count` / `rows`, with the count as `k`."""
    return gate(count / max(rows, 1), rows, *limits) | {"k": count}


def failed(gates: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the gates that did not pass, sorted."""
    return sorted(name for name, one in gates.items() if not one["passed"])
