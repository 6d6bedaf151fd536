"""The panels of a dataset's page, each a function that draws into the axes it is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.paper.config import PageSettings
from dark_halo_scope.paper.style import COLOURS, lupton_rgb
from dark_halo_scope.survey.names import PIXEL_SCALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

FloatArray = NDArray[np.float64]

# Beyond these percentiles of all that a panel shows, its axis ends: one outlier would squeeze the rest into a bin.
_SHOWN = (0.3, 99.7)
_GREY = "#666666"
_BAR_ARCSEC = 3.0
_LEGEND: Any = {"handlelength": 1.4, "borderpad": 0.1, "borderaxespad": 0.3, "labelspacing": 0.2}
FEATURES = ("core", "radial", "annulus", "corner_noise", "metadata")
_CLASSIFIERS = {"logistic": ("o", COLOURS["blue"]), "boosting": ("s", COLOURS["orange"])}


@dataclass(frozen=True)
class Curve:
    """One histogram of a panel: values (NaN are left out), their weights if any, and how it is drawn."""

    label: str
    values: FloatArray
    colour: str
    weights: FloatArray | None = None
    dashed: bool = False


def distributions(
    axes: "Axes", label: str, curves: Sequence[Curve], bins: int, logarithmic: bool = False, legend: bool = False
) -> None:
    """Normalised histograms over common bins; says so where there is nothing to draw.

    Args:
        axes: to draw into.
        label: of the x axis, with its unit.
        curves: drawn in this order; those without a value are left out.
        bins: their number.
        logarithmic: x axis, and bins.
        legend: above the curves.
    """
    axes.set_xlabel(label)
    axes.set_yticks([])
    usable = [curve for curve in curves if np.isfinite(_scaled(curve.values, logarithmic)).any()]
    if not usable:
        nothing(axes, "not in this dataset")
        return
    known = np.concatenate([_scaled(curve.values, logarithmic) for curve in usable])
    low, high = np.percentile(known[np.isfinite(known)], _SHOWN)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    for curve in usable:
        values = _scaled(curve.values, logarithmic)
        finite = np.isfinite(values)
        weights = np.ones(len(values)) if curve.weights is None else np.nan_to_num(curve.weights)
        # What lies outside counts in the norm, so that areas compare.
        total = weights[finite].sum()
        if not total > 0:
            continue
        heights = np.histogram(values[finite], edges, weights=weights[finite])[0] / (total * (edges[1] - edges[0]))
        places = 10**edges if logarithmic else edges
        style: dict[str, Any] = {"linestyle": (0, (3, 1.5))} if curve.dashed else {}
        axes.stairs(heights, places, color=curve.colour, label=curve.label, linewidth=0.9, **style)
    if logarithmic:
        axes.set_xscale("log")
    # What a line of the legend takes of a panel.
    room = 0.96 - 0.085 * len(usable) if legend else 0.95
    axes.set_ylim(0, axes.dataLim.y1 / room)
    if legend:
        axes.legend(fontsize=4.8, frameon=False, loc="upper right", **_LEGEND)


def nothing(axes: "Axes", text: str) -> None:
    """An empty panel that says why."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=6)
    axes.set(xticks=[], yticks=[])


def errors(axes: "Axes", true: FloatArray, measured: FloatArray, bias: Sequence[Mapping[str, Any]]) -> None:
    """Measured less true g magnitude of injections: every one, and medians with 16th and 84th percentiles."""
    axes.set(xlabel="true lensed g [mag]", ylabel="error [mag]")
    axes.set_title("measured − true, injections", loc="left")
    shown = np.isfinite(true) & np.isfinite(measured)
    if not shown.any():
        nothing(axes, "no true magnitudes\nin this dataset")
        return
    axes.plot(true[shown], (measured - true)[shown], ".", color=COLOURS["blue"], markersize=1.2, alpha=0.35, mew=0)
    known = [item for item in bias if "median" in item]
    if known:
        middle = [(item["low"] + item["high"]) / 2 for item in known]
        spread = [[item["median"] - item["p16"] for item in known], [item["p84"] - item["median"] for item in known]]
        axes.errorbar(
            middle, [item["median"] for item in known], spread, fmt="o", color="black", markersize=2.5, linewidth=0.8
        )
    axes.axhline(0, color=_GREY, linewidth=0.5)
    low, high = np.percentile((measured - true)[shown], _SHOWN)
    axes.set_ylim(min(low, -1.0), max(high, 1.0))


def shortcut_aucs(axes: "Axes", title: str, features: Mapping[str, Any], names: Sequence[str]) -> None:
    """Held-out AUC of both classifiers on each set of features, with its interval; chance is the line."""
    axes.set_title(title)
    axes.axvline(0.5, color=_GREY, linewidth=0.5)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="cross-validated AUC")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    note: Any = {"transform": axes.get_yaxis_transform(), "color": _GREY, "fontsize": 5.5, "va": "center"}
    lowest = 0.3
    for place, name in enumerate(names):
        measured = features.get(name)
        if not isinstance(measured, Mapping):
            axes.text(0.03, place, "not measured", **note)
            continue
        for number, (classifier, (marker, colour)) in enumerate(_CLASSIFIERS.items()):
            result = measured.get(classifier)
            if not isinstance(result, Mapping):
                axes.text(0.03, place + 0.36 * number - 0.18, str(result or ""), **note)
                continue
            y = place + 0.36 * number - 0.18
            low, high = result["interval"]
            lowest = min(lowest, low)
            axes.plot([low, high], [y, y], color=colour, linewidth=0.9)
            axes.plot(result["value"], y, marker, color=colour, markersize=3)
    # A marker at 1 stays whole.
    axes.set_xlim(lowest, 1.02)
    axes.set_xticks([0.5, 0.75, 1.0], ["0.5", "0.75", "1"])


def classifiers_legend(figure: "SubFigure", left: float) -> None:
    """Which marker is which classifier, below the panels of `shortcut_aucs`, where no value can lie.

    Args:
        figure: that holds the panels.
        left: edge of the panels, of the figure's width.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=marker, color=colour, markersize=3, linewidth=0.9, label=classifier)
        for classifier, (marker, colour) in _CLASSIFIERS.items()
    ]
    handles.append(Line2D([], [], color=_GREY, linewidth=0.5, label="chance"))
    options: Any = _LEGEND | {"handlelength": 2.2}
    figure.legend(
        handles=handles, ncols=3, fontsize=5.5, frameon=False, loc="lower left", bbox_to_anchor=(left, 0.0), **options
    )


def scale_bar(axes: "Axes") -> None:
    """How long some arcsec are, in a `picture`."""
    length = _BAR_ARCSEC / PIXEL_SCALE
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    end, height = right - 0.06 * (right - left), bottom + 0.9 * (top - bottom)
    axes.plot([end - length, end], [height, height], color="white", linewidth=1.0)
    axes.text(end - length / 2, height, f"{_BAR_ARCSEC:g}″", color="white", fontsize=5, ha="center", va="bottom")


def table(axes: "Axes", title: str, cells: Sequence[Sequence[str]], widths: Sequence[float]) -> None:
    """Lines of text in columns, the first line bold; `widths` are shares of the panel."""
    axes.set_axis_off()
    axes.set_title(title, loc="left")
    left = np.concatenate([[0.0], np.cumsum(widths)])
    step = 1.0 / max(len(cells), 9)
    for line, row in enumerate(cells):
        for column, text in enumerate(row):
            right = column > 0
            axes.text(
                left[column + 1] - 0.01 if right else left[column],
                1.0 - (line + 0.5) * step,
                text,
                transform=axes.transAxes,
                ha="right" if right else "left",
                va="center",
                fontsize=5.5,
                fontweight="bold" if line == 0 else "normal",
            )


def picture(axes: "Axes", stamp: NDArray[np.float32], label: str, settings: PageSettings) -> None:
    """The middle of a stamp in colour, or a note that it cannot be shown."""
    axes.set(xticks=[], yticks=[])
    edge = max(0, (stamp.shape[-1] - settings.crop_pix) // 2)
    stamp = stamp[:, edge : stamp.shape[-2] - edge, edge : stamp.shape[-1] - edge]
    if not np.isfinite(stamp).all():
        nothing(axes, "none")
        return
    axes.imshow(lupton_rgb(stamp, settings.stretch, settings.softening), origin="lower", interpolation="nearest")
    axes.text(0.03, 0.03, label, transform=axes.transAxes, color="white", fontsize=5, va="bottom", linespacing=1.1)


def _scaled(values: FloatArray, logarithmic: bool) -> FloatArray:
    if not logarithmic:
        return values
    return np.log10(np.where(values > 0, values, np.nan))
