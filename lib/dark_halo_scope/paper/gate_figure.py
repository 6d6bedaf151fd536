"""Figure 3: gates of every generation by stratum, with intervals, nulls and thresholds."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.paper.figure_config import GateFigureSettings
from dark_halo_scope.paper.layout import Margins, panel_row
from dark_halo_scope.paper.style import COLOURS, GREY, PAPER_RC_PARAMS, save_figure
from dark_halo_scope.paper.tables import gated_otherwise, read_gates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("v", "s", "o", "D", "^", "P")
_COLOURS = tuple(COLOURS[name] for name in ("green", "orange", "blue", "black", "purple", "red"))
_BOUND = {"at most": "≤", "at least": "≥"}
_MARGINS = Margins(left=29.0, right=2.0, top=9.0, bottom=16.0, gap=2.5)
# A stratum's line within its generation's row, of the row's height.
_SPREAD = 0.66


def draw(gates: Mapping[str, Mapping[str, Any]], settings: GateFigureSettings) -> "Figure":
    """One panel a gate, one row a generation, one marker a stratum; what the gate is judged on is filled.

    Args:
        gates: gates.json by generation, in the order of the rows.
        settings: of the figure.

    Raises:
        BadInputError: more strata than there are markers.
    """
    import matplotlib as mpl

    others = gated_otherwise(gates)
    usual = next(result for name, result in gates.items() if name not in others)
    entries = usual["gates"]
    strata = strata_of(usual)
    if len(strata) > len(_MARKERS):
        raise BadInputError(f"The gates have {len(strata)} strata, and the figure has markers for {len(_MARKERS)}.")
    height = _MARGINS.top + _MARGINS.bottom + settings.row_mm * len(gates)
    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, panels = panel_row(len(entries), height, _MARGINS, sharey=True)
        for axes, (name, entry) in zip(panels, entries.items(), strict=True):
            _frame(axes, name, entry, len(gates))
            for row, (generation, result) in enumerate(gates.items()):
                if generation in others:
                    reason = f"gated otherwise:\n{', '.join(others[generation])}"
                    _note(axes, row, reason)
                    continue
                for place, stratum in enumerate(strata):
                    y = row + _SPREAD * ((place + 0.5) / len(strata) - 0.5)
                    measured = result["gates"][name]
                    judged = stratum == measured["stratum"]
                    _number(axes, measured["strata"].get(stratum), y, place, judged)
        panels[0].set_yticks(range(len(gates)), [f"{name}\n{result['verdict']}" for name, result in gates.items()])
        _legend(figure, usual, strata, height)
    return figure


def strata_of(gates: Mapping[str, Any]) -> list[str]:
    """Strata by increasing x, and then all pairs."""
    first = next(iter(gates["gates"].values()))["strata"]
    edges = gates["settings"]["strata"]
    ordered = [
        f"x < {edges[0]:g}",
        *(f"{low:g} <= x < {high:g}" for low, high in pairwise(edges)),
        f"x >= {edges[-1]:g}",
        "all",
    ]
    return [name for name in ordered if name in first] + [name for name in first if name not in ordered]


def _frame(axes: "Axes", name: str, entry: Mapping[str, Any], rows: int) -> None:
    """Title, threshold, and the side of it that fails."""
    axes.set_title(f"{name} {entry['title']}\n{entry['number']} {_BOUND[entry['bound']]} {entry['threshold']:g}")
    axes.set(xlim=(-0.04, 1.04), ylim=(rows - 0.5, -0.5))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.tick_params(axis="y", length=0)
    axes.axvline(entry["threshold"], color=COLOURS["red"], linestyle=(0, (4, 2)), linewidth=0.8, zorder=1)
    fails = (entry["threshold"], 1.04) if entry["bound"] == "at most" else (-0.04, entry["threshold"])
    axes.axvspan(*fails, color=COLOURS["red"], alpha=0.08, linewidth=0, zorder=0)
    for edge in range(1, rows):
        axes.axhline(edge - 0.5, color="0.8", linewidth=0.4, zorder=0)


def _number(axes: "Axes", measured: Mapping[str, Any] | None, y: float, place: int, judged: bool) -> None:
    """A stratum's value, interval and null, or why there is none."""
    if measured is None or measured.get("value") is None:
        _note(axes, y, "not measured" if measured is None else str(measured.get("status", "not measured")))
        return
    null = measured.get("null")
    if null:
        axes.plot([null["low"], null["high"]], [y, y], color="0.75", linewidth=2.6, solid_capstyle="butt", zorder=2)
    colour = _COLOURS[place]
    if measured.get("interval"):
        axes.plot(measured["interval"], [y, y], color=colour, linewidth=0.9, zorder=3)
    face = colour if judged else "white"
    axes.plot(measured["value"], y, _MARKERS[place], color=colour, mfc=face, markersize=3.2, mew=0.7, zorder=4)


def _note(axes: "Axes", y: float, text: str) -> None:
    axes.text(0.5, y, text, fontsize=5, color=GREY, ha="center", va="center", zorder=5)


def _legend(figure: "Figure", gates: Mapping[str, Any], strata: Sequence[str], height: float) -> None:
    """Which marker is which stratum and how many pairs it has, below all panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for place, stratum in enumerate(strata):
        counts = {entry["strata"][stratum]["n"] for entry in gates["gates"].values() if stratum in entry["strata"]}
        shown = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)}–{max(counts)}"
        label = "all pairs" if stratum == "all" else stratum.replace("<=", "≤").replace(">=", "≥").replace("x", "$x$")
        style: Any = {"marker": _MARKERS[place], "color": _COLOURS[place], "mfc": "white"}
        handles.append(Line2D([], [], markersize=3.2, linewidth=0.9, label=f"{label} (n = {shown})", **style))
    handles.append(Line2D([], [], marker="o", linestyle="", color=GREY, markersize=3.2, label="filled: judged"))
    handles.append(Patch(color="0.75", label="labels permuted"))
    handles.append(Line2D([], [], color=COLOURS["red"], linestyle=(0, (4, 2)), linewidth=0.8, label="threshold"))
    options: Any = {"ncols": 4, "loc": "lower center", "handlelength": 1.8, "columnspacing": 2.0, "borderaxespad": 0.3}
    figure.legend(handles=handles, bbox_to_anchor=(0.5, 0.5 / height), **options)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the gates, draw, write."""
    parser = argument_parser("Draw the gates of several generations by stratum.")
    parser.add_argument("--gates", nargs="+", required=True, type=Path, help="gates.json, in the order of the rows")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    figure = draw(read_gates(arguments.gates), load_settings(arguments.settings, GateFigureSettings))
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
