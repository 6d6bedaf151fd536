"""Figure 4: ROC curves of injections and of known lenses, with exact intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.evaluation.intervals import clopper_pearson
from dark_halo_scope.paper.figure_config import RocFigureSettings
from dark_halo_scope.paper.layout import Margins, panel_row
from dark_halo_scope.paper.small_csv import flags, numbers, read_columns
from dark_halo_scope.paper.style import COLOURS, GREY, PAPER_RC_PARAMS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_HEIGHT_MM = 82.0
_MARGINS = Margins(left=10.0, right=3.0, top=5.0, bottom=15.0, gap=7.0)
# Each generation has a colour and a dash of its own, for those who print in grey; the last one has the first of these.
_STYLES: tuple[tuple[str, Any], ...] = (
    ("blue", "-"),
    ("sky", (0, (7, 2))),
    ("purple", (0, (3, 1, 1, 1, 1, 1))),
    ("red", (0, (3, 1, 1, 1))),
    ("orange", (0, (5, 1.5))),
    ("green", (0, (1, 1))),
    ("black", (0, (1, 2))),
)


@dataclass(frozen=True)
class Curve:
    """True positive rate over false positive rate at falling thresholds, with its interval; arrays (T,)."""

    fpr: FloatArray
    tpr: FloatArray
    low: FloatArray
    high: FloatArray
    threshold: FloatArray


@dataclass(frozen=True)
class Generation:
    """What one generation's panel lines are made of; `anchors` is None where there are too few.

    n_positive, n_negative, n_anchors: what the rates are shares of.
    """

    name: str
    injections: Curve
    n_positive: int
    n_negative: int
    anchors: Curve | None
    n_anchors: int


def read_curve(path: Path) -> tuple[str, Curve, int, int]:
    """Generation, ROC of positives against controls, and how many of each, from a performance.json.

    Raises:
        CorruptDataError: it has no such curve.
        BadInputError: the curve is empty, for lack of a class.
    """
    result = read_json(path)
    try:
        roc = result["roc"]
        # No score reaches the first threshold, which JSON cannot call infinite.
        threshold = [np.inf if value is None else value for value in roc["threshold"]]
        lists = (roc["fpr"], roc["tpr"], roc["tpr_low"], roc["tpr_high"], threshold)
        curve = Curve(*(np.asarray(values, dtype=np.float64) for values in lists))
        name, n_positive, n_negative = str(result["generation"]), int(roc["n_positive"]), int(roc["n_negative"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"{path} holds no ROC curve of positives against controls ({error!r}).") from None
    if not len(curve.fpr):
        raise BadInputError(f"The ROC curve in {path} is empty: {n_positive} positives, {n_negative} controls.")
    return name, curve, n_positive, n_negative


def read_anchor_scores(path: Path) -> FloatArray:
    """(N,) probabilities of the anchors of an anchors.csv, without the stress lists.

    Raises:
        BadInputError: the file is missing or lacks a column.
        CorruptDataError: a score is no number.
    """
    columns = read_columns(path, ("stress", "score"))
    score = numbers(path, "score", columns["score"])[~flags(columns["stress"])]
    if not np.isfinite(score).all():
        raise CorruptDataError(f"{path} has anchors without a score; evaluate the anchors again.")
    return score


def anchor_curve(injections: Curve, score_N: FloatArray, settings: RocFigureSettings) -> Curve | None:
    """Recall of known lenses at the thresholds of the injections' curve, over the same controls' false positive rate.

    None where there are too few anchors for a curve.
    """
    if len(score_N) < settings.min_anchors:
        return None
    ranked = np.sort(score_N)
    found = len(ranked) - np.searchsorted(ranked, injections.threshold, side="left")
    low, high = clopper_pearson(found, len(ranked), settings.confidence)
    recall = found.astype(np.float64) / len(ranked)
    return Curve(injections.fpr, recall, low.astype(np.float64), high.astype(np.float64), injections.threshold)


def draw(generations: Sequence[Generation], settings: RocFigureSettings) -> "Figure":
    """Two panels, injections and known lenses, one line a generation with its band."""
    import matplotlib as mpl

    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, panels = panel_row(2, _HEIGHT_MM, _MARGINS, sharey=True)
        for number, generation in enumerate(generations):
            colour, dash = _STYLES[len(generations) - 1 - number]
            style = {"color": COLOURS[colour], "linestyle": dash}
            _curve(panels[0], generation.injections, style, generation.name)
            if generation.anchors is not None:
                _curve(panels[1], generation.anchors, style, generation.name)
        positives, negatives = (
            _counts(getattr(generation, name) for generation in generations) for name in ("n_positive", "n_negative")
        )
        anchors = _counts(generation.n_anchors for generation in generations)
        panels[0].set_title(f"injections (n = {positives})", loc="left")
        panels[1].set_title(f"known lenses (n = {anchors})", loc="left")
        fewest = min(generation.n_negative for generation in generations)
        for axes in panels:
            _frame(axes, settings, settings.min_false_positives / fewest)
        panels[0].set_ylabel("true positive rate")
        options: dict[str, Any]
        if all(generation.anchors is None for generation in generations):
            options = {"transform": panels[1].transAxes, "ha": "center", "color": GREY}
            panels[1].text(0.5, 0.5, f"fewer than {settings.min_anchors} known lenses", **options)
        note = f"fewer than {settings.min_false_positives} of {negatives} controls pass"
        panels[0].text(settings.lowest_fpr * 1.1, 0.985, note, fontsize=5.5, color=GREY, va="top")
        # Below both panels: inside one it would hide curves, which differ from survey to survey.
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="lower center",
            ncol=len(generations),
            frameon=False,
            handlelength=2.8,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
    return figure


def _counts(values: Any) -> str:
    distinct = sorted(set(values))
    return str(distinct[0]) if len(distinct) == 1 else f"{distinct[0]}–{distinct[-1]}"


def _curve(axes: "Axes", curve: Curve, style: Mapping[str, Any], label: str) -> None:
    # The point (0, 0) has no place on a logarithmic axis.
    shown = curve.fpr > 0
    axes.plot(curve.fpr[shown], curve.tpr[shown], label=label, **style)
    axes.fill_between(
        curve.fpr[shown], curve.low[shown], curve.high[shown], color=style["color"], alpha=0.15, linewidth=0
    )


def _frame(axes: "Axes", settings: RocFigureSettings, measurable: float) -> None:
    """Axes, chance, and where too few controls pass for a false positive rate."""
    axes.set_xscale("log")
    axes.set(xlim=(settings.lowest_fpr, 1), ylim=(0, 1), xlabel="false positive rate of controls")
    chance = np.geomspace(settings.lowest_fpr, 1, 200)
    axes.plot(chance, chance, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
    if measurable > settings.lowest_fpr:
        axes.axvspan(settings.lowest_fpr, min(measurable, 1), color="0.92", linewidth=0, zorder=0)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the curves and the anchors' scores of each generation, draw."""
    parser = argument_parser("Draw ROC curves of injections and of known lenses.")
    parser.add_argument("--performance", nargs="+", required=True, type=Path, help="performance.json, in order")
    parser.add_argument("--anchors", nargs="+", required=True, type=Path, help="anchors.csv of the same generations")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, RocFigureSettings)
    if len(arguments.performance) != len(arguments.anchors):
        raise BadInputError("The figure needs one anchors.csv for each performance.json, in the same order.")
    if len(arguments.performance) > len(_STYLES):
        raise BadInputError(f"The figure tells {len(_STYLES)} generations apart; name fewer in paper.roc_of.")
    generations = []
    for performance, anchors in zip(arguments.performance, arguments.anchors, strict=True):
        name, injections, n_positive, n_negative = read_curve(performance)
        score = read_anchor_scores(anchors)
        curve = anchor_curve(injections, score, settings)
        generations.append(Generation(name, injections, n_positive, n_negative, curve, len(score)))
    figure = draw(generations, settings)
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
