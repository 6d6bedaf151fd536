"""Grids of square pictures and rows of panels, of an exact printed width."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dark_halo_scope.paper.style import PAGE_MM, figure_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Margins:
    """What a figure leaves around its axes, millimetres; `gap` between columns, `row_gap` between rows."""

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
    margins = margins or Margins()
    side = _column_width(columns, margins, width_mm)
    height = margins.top + margins.bottom + rows * side + (rows - 1) * margins.row_gap
    figure, axes = _subplots(rows, columns, margins, width_mm, height)
    figure.subplots_adjust(hspace=margins.row_gap / side)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def panel_row(columns: int, height_mm: float, margins: Margins, sharey: bool = False) -> "tuple[Figure, Any]":
    """A figure as wide as a page, `height_mm` high with its margins, and its (columns,) axes side by side."""
    figure, axes = _subplots(1, columns, margins, PAGE_MM, height_mm, sharey)
    return figure, axes[0]


def _subplots(
    rows: int, columns: int, margins: Margins, width_mm: float, height_mm: float, sharey: bool = False
) -> "tuple[Figure, Any]":
    """A figure and its (rows, columns) axes; Matplotlib takes gaps in parts of an axis, margins in parts of all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=figure_size(width_mm, height_mm))
    axes = figure.subplots(rows, columns, sharey=sharey, squeeze=False)
    figure.subplots_adjust(
        left=margins.left / width_mm,
        right=1 - margins.right / width_mm,
        top=1 - margins.top / height_mm,
        bottom=margins.bottom / height_mm,
        wspace=margins.gap / _column_width(columns, margins, width_mm),
    )
    return figure, axes


def _column_width(columns: int, margins: Margins, width_mm: float) -> float:
    return (width_mm - margins.left - margins.right - margins.gap * (columns - 1)) / columns
