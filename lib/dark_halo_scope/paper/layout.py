"""Grids of square pictures of an exact printed width."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dark_halo_scope.paper.style import PAGE_MM, figure_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Margins:
    """What a grid leaves around its pictures, millimetres; `gap` between columns, `row_gap` between rows."""

    left: float = 0.2
    right: float = 0.2
    top: float = 4.5
    bottom: float = 0.2
    gap: float = 0.8
    row_gap: float = 0.8


def picture_grid(
    rows: int, columns: int, margins: Margins | None = None, width_mm: float = PAGE_MM
) -> "tuple[Figure, Any]":
    """A figure of `width_mm` and its (rows, columns) square axes without ticks."""
    from matplotlib.figure import Figure

    margins = margins or Margins()
    side = (width_mm - margins.left - margins.right - margins.gap * (columns - 1)) / columns
    height = margins.top + margins.bottom + rows * side + (rows - 1) * margins.row_gap
    figure = Figure(figsize=figure_size(width_mm, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=margins.left / width_mm,
        right=1 - margins.right / width_mm,
        top=1 - margins.top / height,
        bottom=margins.bottom / height,
        wspace=margins.gap / side,
        hspace=margins.row_gap / side,
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes
