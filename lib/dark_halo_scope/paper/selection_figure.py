"""Figure 6: completeness over Einstein radius and redshift, as a smooth surface with its uncertainty and its cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.paper.figure_config import SelectionFigureSettings
from dark_halo_scope.paper.layout import Margins, panel_row
from dark_halo_scope.paper.small_csv import numbers, read_columns
from dark_halo_scope.paper.style import COLOURS, GREY, PAPER_RC_PARAMS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

#: What completeness.csv calls the cells over Einstein radius and redshift.
AXES = "theta_e_arcsec x z_phot"

_HEIGHT_MM, _BAR_MM = 64.0, 2.0
_TOPS = (0.25, 0.5, 1.0)
_MARGINS = Margins(left=10.0, right=2.0, top=12.0, bottom=9.0, gap=12.0)
# Colour, marker and shift to the side (of a panel's width) of each cut, so that their bars do not hide one another.
_CUTS = (
    (COLOURS["blue"], "o", -0.008),
    (COLOURS["orange"], "s", 0.0),
    (COLOURS["green"], "^", 0.008),
    (COLOURS["red"], "D", 0.016),
)


@dataclass(frozen=True)
class Surface:
    """Completeness on a grid: theta_e (T,) arcsec, z (Z,), and (Z, T) value, low, high, injections in cells around."""

    theta_e: FloatArray
    z: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    n: FloatArray


@dataclass(frozen=True)
class Cells:
    """Counted completeness, (C,) each: edges of cells in theta_E (arcsec) and z, injections, share found, interval."""

    theta_low: FloatArray
    theta_high: FloatArray
    z_low: FloatArray
    z_high: FloatArray
    n: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray


def read_surface(path: Path, threshold: str) -> Surface | None:
    """The grid of one threshold of a completeness_surface.csv; None where too few injections carry one.

    Raises:
        BadInputError: the file is missing or lacks a column.
        CorruptDataError: the rows make no grid.
    """
    names = ("theta_e_arcsec", "z", "value", "low", "high", "n")
    columns = read_columns(path, ("threshold", *names))
    chosen = np.flatnonzero([cell == threshold for cell in columns["threshold"]])
    if not len(chosen):
        return None
    theta, z, *values = (numbers(path, name, columns[name])[chosen] for name in names)
    theta_axis, z_axis = np.unique(theta), np.unique(z)
    if len(theta) != len(theta_axis) * len(z_axis):
        raise CorruptDataError(f"{path} holds {len(theta)} points, which are no grid; measure completeness again.")
    order = np.lexsort((theta, z))
    shape = (len(z_axis), len(theta_axis))
    return Surface(theta_axis, z_axis, *(column[order].reshape(shape) for column in values))


def read_cells(path: Path, threshold: str) -> Cells:
    """The cells over Einstein radius and redshift of one threshold of a completeness.csv, empty ones left out.

    Raises:
        BadInputError: the file is missing, lacks a column, or knows no such threshold.
    """
    edges = ("theta_e_arcsec_low", "theta_e_arcsec_high", "z_phot_low", "z_phot_high")
    measured = ("n", "value", "low", "high")
    columns = read_columns(path, ("threshold", "axes", *edges, *measured))
    if threshold not in columns["threshold"]:
        known = ", ".join(sorted(set(columns["threshold"]))) or "none"
        raise BadInputError(
            f"{path} has no threshold {threshold!r}; it has {known}: correct figure_selection_function.threshold."
        )
    rows = zip(columns["threshold"], columns["axes"], strict=True)
    chosen = np.flatnonzero([row == (threshold, AXES) for row in rows])
    values = [numbers(path, name, columns[name])[chosen] for name in (*edges, *measured)]
    filled = values[4] > 0
    return Cells(*(column[filled] for column in values))


def draw(surface: Surface | None, cells: Cells, settings: SelectionFigureSettings) -> "Figure":
    """Three panels: the surface with contours, half the width of its interval, and cuts at given redshifts.

    What lies in cells without injections, and is extrapolated, is hatched; without a surface there are counts alone.
    """
    import matplotlib as mpl

    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, panels = panel_row(3, _HEIGHT_MM, _MARGINS)
        if surface is None:
            for axes in panels[:2]:
                _note(axes, "not measurable:\ntoo few injections for a surface")
        else:
            shown = _mesh(panels[0], surface, surface.value, "cividis", _top(surface.value.max()))
            lines = panels[0].contour(
                surface.theta_e, surface.z, surface.value, settings.levels, colors="white", linewidths=0.7
            )
            panels[0].clabel(lines, fmt="%g", fontsize=5.5)
            _bar(figure, panels[0], shown, "completeness")
            spread = (surface.high - surface.low) / 2
            widest = _mesh(panels[1], surface, spread, "magma_r", max(float(spread.max()), 1e-3))
            _bar(figure, panels[1], widest, "half width of its interval")
        for axes in panels[:2]:
            axes.set_ylabel("redshift of the host")
        _cuts(panels[2], surface, cells, settings)
        for axes in panels:
            axes.set_xlabel("Einstein radius [arcsec]")
    return figure


def _top(largest: float) -> float:
    """End of the scale of a completeness: few of them, so that figures can be compared."""
    return next((top for top in _TOPS if largest <= top), 1.0)


def _note(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def _mesh(axes: "Axes", surface: Surface, values: FloatArray, colours: str, top: float) -> Any:
    image = axes.pcolormesh(
        surface.theta_e, surface.z, values, cmap=colours, vmin=0, vmax=top, shading="gouraud", rasterized=True
    )
    if (surface.n == 0).any():
        axes.contourf(surface.theta_e, surface.z, surface.n, [-1, 0.5], colors="none", hatches=["////"])
    axes.set(xlim=(surface.theta_e[0], surface.theta_e[-1]), ylim=(surface.z[0], surface.z[-1]))
    return image


def _bar(figure: "Figure", axes: "Axes", image: Any, label: str) -> None:
    """A colour bar above a panel, with what it shows."""
    box = axes.get_position()
    place = (box.x0, box.y1 + 1.2 / _HEIGHT_MM, box.width, _BAR_MM / _HEIGHT_MM)
    bar = figure.colorbar(image, cax=figure.add_axes(place), orientation="horizontal")
    bar.ax.xaxis.set_ticks_position("top")
    bar.ax.xaxis.set_label_position("top")
    bar.ax.tick_params(length=1.5, pad=1, bottom=False)
    bar.set_label(label, labelpad=2)
    bar.outline.set_linewidth(0.4)


def _cuts(axes: "Axes", surface: Surface | None, cells: Cells, settings: SelectionFigureSettings) -> None:
    """Completeness over Einstein radius at given redshifts, and the cells that hold them."""
    from matplotlib.ticker import MultipleLocator

    top = _top(max([*cells.value, *([] if surface is None else [surface.value.max()])], default=1.0))
    axes.set(ylim=(0, top), ylabel="completeness")
    axes.yaxis.set_major_locator(MultipleLocator(top / 5))
    if not len(cells.n):
        _note(axes, "no injection in any cell")
        return
    ends = float(cells.theta_low.min()), float(cells.theta_high.max())
    axes.set_xlim(ends)
    span = float(cells.z_low.min()), float(cells.z_high.max())
    inside = [z for z in settings.redshifts if span[0] <= z < span[1]]
    for (colour, marker, aside), z in zip(_CUTS, inside, strict=False):
        if surface is not None:
            value, low, high = (
                np.array([np.interp(z, surface.z, column) for column in grid.T])
                for grid in (surface.value, surface.low, surface.high)
            )
            axes.plot(surface.theta_e, value, color=colour)
            axes.fill_between(surface.theta_e, low, high, color=colour, alpha=0.18, linewidth=0)
        held = (cells.z_low <= z) & (z < cells.z_high)
        middle = (cells.theta_low + cells.theta_high)[held] / 2 + aside * (ends[1] - ends[0])
        counted = cells.value[held]
        bars = np.clip([counted - cells.low[held], cells.high[held] - counted], 0, 1)
        style: Any = {"fmt": marker, "color": colour, "markersize": 2.8, "linewidth": 0.7, "mfc": "white"}
        axes.errorbar(middle, counted, bars, label=f"$z$ = {z:g}", **style)
    if inside:
        axes.legend(loc="lower right" if top == 1.0 else "upper right", handlelength=1.6)
    else:
        _note(axes, f"the redshifts asked for\nlie outside of {span[0]:.2f} to {span[1]:.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the surface and its cells, draw."""
    parser = argument_parser("Draw completeness over Einstein radius and redshift.")
    parser.add_argument("--completeness", type=Path, required=True, help="completeness.csv: counted cells")
    parser.add_argument("--surface", type=Path, required=True, help="completeness_surface.csv: the smooth surface")
    parser.add_argument("--output", type=Path, required=True, nargs="+", help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, SelectionFigureSettings)
    surface = read_surface(arguments.surface, settings.threshold)
    figure = draw(surface, read_cells(arguments.completeness, settings.threshold), settings)
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
