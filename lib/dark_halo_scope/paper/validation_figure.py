"""How a finder of real images did on the test split: reliability, recall by tier, false positives by kind of galaxy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.paper.figure_config import ValidationFigureSettings
from dark_halo_scope.paper.layout import Margins, panel_row
from dark_halo_scope.paper.number_rows import draw_number, name_rows
from dark_halo_scope.paper.style import COLOURS, GREY, PAPER_RC_PARAMS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGINS = Margins(left=10.0, right=3.0, top=5.0, bottom=9.0, gap=25.0)
_HEIGHT_MM = 58.0

#: Of `calibration.test.probabilities`, and how each is drawn: colour, marker, label.
_PROBABILITIES = {"raw": ("orange", "s", "as the network says"), "platt": ("blue", "o", "after Platt scaling")}


def draw(
    validation: Mapping[str, Any], settings: ValidationFigureSettings, known: Mapping[str, Any] | None = None
) -> "Figure":
    """Three panels: reliability of probabilities, recall of lenses, false positive rates.

    Args:
        validation: validation.json.
        settings: of the figure.
        known: known_lenses.json, for recall that is not circular; without it, that of the test split alone.

    Raises:
        BadInputError: the validation has no such threshold.
        CorruptDataError: it is not a finder's.
    """
    import matplotlib as mpl

    try:
        recall, fpr, calibration = (validation[name] for name in ("recall", "fpr", "calibration"))
        not_circular = (known or validation)["recall"]["tier_not_circular"]
        thresholds = list(validation["thresholds"])
    except KeyError as error:
        raise CorruptDataError(f"The validation lacks {error}; run validate_finder again.") from None
    if settings.threshold not in thresholds:
        raise BadInputError(
            f"The validation has no threshold {settings.threshold!r}; it has {', '.join(thresholds)}: correct "
            "figure_validation.threshold."
        )
    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, (left, middle, right) = panel_row(3, _HEIGHT_MM, _MARGINS)
        _reliability(left, calibration)
        middle.set_xlim(0, 1.02)
        lenses = _lenses(recall, not_circular)
        for place, (_, by_threshold) in enumerate(lenses):
            draw_number(middle, place, by_threshold[settings.threshold], COLOURS["blue"])
        name_rows(middle, [name for name, _ in lenses])
        middle.set_xlabel(f"recall at {settings.threshold}")
        _false_positives(right, fpr, settings.threshold)
    return figure


def _reliability(axes: "Axes", calibration: Mapping[str, Any]) -> None:
    """Share of lenses in bins of the probability, as the network says it and as Platt scaling mends it."""
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share of lenses", aspect="equal")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 2)), linewidth=0.7, zorder=0)
    if calibration["test"] is None:
        axes.text(0.5, 0.5, calibration["status"], ha="center", va="center", fontsize=5, color=GREY, wrap=True)
        return
    for name, (colour, marker, label) in _PROBABILITIES.items():
        bins = calibration["test"]["probabilities"][name]["reliability"]
        x, y = ([entry[key] for entry in bins] for key in ("mean_probability", "value"))
        low, high = ([entry["interval"][end] for entry in bins] for end in (0, 1))
        bars = [[v - a for v, a in zip(y, low, strict=True)], [b - v for v, b in zip(y, high, strict=True)]]
        style: Any = {"fmt": marker, "markersize": 3.0, "linewidth": 0.7, "mfc": "white", "clip_on": False}
        axes.errorbar(x, y, bars, color=COLOURS[colour], label=label, **style)
    axes.legend(loc="lower right", handlelength=1.0)


def _lenses(recall: Mapping[str, Any], not_circular: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Groups of real lenses from top to bottom, each with its recall by threshold."""
    tiers = [(f"Tier-{name}", entry) for name, entry in recall["tier"].items()]
    apart = [(f"Tier-{name}, not circular", entry) for name, entry in not_circular.items()]
    return [("all lenses", recall["overall"]["all"]), *tiers, *apart]


def _false_positives(axes: "Axes", fpr: Mapping[str, Any], threshold: str) -> None:
    """Rates of each kind of negative, of the sample as it was drawn and of the pool that it was drawn from."""
    groups = sorted(fpr["sample"], key=lambda name: (name != "all", name.startswith("confuser"), name))
    drawn = [fpr[kind][name][threshold] for kind in ("sample", "survey") for name in groups]
    ends = [entry["interval"][1] for entry in drawn if entry["interval"] and entry["n"] >= 10]
    axes.set_xlim(0, min(1.0, max([0.05, *ends]) * 1.05))
    for place, name in enumerate(groups):
        draw_number(axes, place - 0.12, fpr["sample"][name][threshold], COLOURS["orange"], "s")
        if fpr["survey"][name][threshold]["value"] is not None:
            draw_number(axes, place + 0.18, fpr["survey"][name][threshold], COLOURS["blue"], "o", counted=False)
    name_rows(axes, [name.removeprefix("confuser ").replace("_", " ") for name in groups])
    axes.set_xlabel(f"false positive rate at {threshold}")
    axes.set_title("squares: sample; circles: pool", color=GREY, fontsize=6)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the validation, draw, write."""
    parser = argument_parser("Draw reliability, recall and false positives of a finder of real images.")
    parser.add_argument("--validation", required=True, type=Path, help="validation.json")
    parser.add_argument("--known", type=Path, nargs="?", help="known_lenses.json, where there is one")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, ValidationFigureSettings)
    known = None if arguments.known is None else read_json(arguments.known)
    figure = draw(read_json(arguments.validation), settings, known)
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
