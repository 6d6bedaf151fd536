"""Measured numbers as points with their intervals, one in each row of a panel."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dark_halo_scope.paper.style import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Nearer to an end of the axis than this, as a part of it, a count is written towards the middle.
_EDGE = 0.12


def draw_number(
    axes: "Axes", row: float, measured: Mapping[str, Any] | None, colour: str, marker: str = "o", counted: bool = True
) -> None:
    """A value with its interval and count, or why there is none, which is put in the middle of the axis as it is.

    Args:
        axes: of the panel; its limits are set before.
        row: where along the other axis.
        measured: `value`, `interval` and `n`, or `status`.
        colour, marker: of the point.
        counted: whether `n` stands above it.
    """
    if not measured or measured.get("value") is None:
        status = str((measured or {}).get("status") or "not measured")
        text = status.removeprefix("not measurable: ")
        axes.text(sum(axes.get_xlim()) / 2, row, text, fontsize=5, color=GREY, ha="center", va="center")
        return
    if measured.get("interval"):
        axes.plot(measured["interval"], [row, row], color=colour, linewidth=1.0)
    axes.plot(measured["value"], row, marker, color=colour, markersize=3.4, mfc="white")
    if counted:
        low, high = axes.get_xlim()
        along = (measured["value"] - low) / (high - low)
        # Centred on the point where that stays inside of the panel.
        side = "left" if along < _EDGE else "right" if along > 1 - _EDGE else "center"
        place = (measured["value"], row)
        axes.annotate(f"n = {measured['n']}", place, (0, 4), textcoords="offset points", fontsize=5, ha=side)


def name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Names from top to bottom on the left, without ticks."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
