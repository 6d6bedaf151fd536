"""The realism ladder: rung by rung, how well injections are told from real lenses, and how many are found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.paper.figure_config import LadderFigureSettings
from dark_halo_scope.paper.layout import Margins, panel_row
from dark_halo_scope.paper.number_rows import draw_number, name_rows
from dark_halo_scope.paper.style import COLOURS, GREY, PAPER_RC_PARAMS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    "sersic_fwhm": "Sérsic sources",
    "sersic_nea": "and the PSF's true width",
    "sersic_noise": "and shot noise",
    "clumpy": "clumpy discs as sources",
    "image": "images of real galaxies as sources",
    "matched_hosts": "and hosts like those of real lenses",
}

_MARGINS = Margins(left=50.0, right=3.0, top=8.0, bottom=9.0, gap=6.0)


def draw(ladder: Mapping[str, Any], settings: LadderFigureSettings) -> "Figure":
    """One row a rung, after real lenses and hosts without arcs: the probe's AUC beside its floor, and the share found.

    Args:
        ladder: ladder.json.
        settings: of the figure.

    Raises:
        BadInputError: no rung has the threshold.
        CorruptDataError: there are no rungs.
    """
    import matplotlib as mpl

    rungs = sorted(ladder.get("rungs") or [], key=lambda rung: rung["number"])
    if not rungs:
        raise CorruptDataError("The ladder has no rungs; measure it again.")
    names = sorted({name for rung in rungs for name in rung["recall"]})
    if settings.threshold not in names:
        raise BadInputError(f"The ladder has no threshold {settings.threshold!r}; it has {', '.join(names)}.")
    lenses, bare = ladder["real_lenses"], ladder["hosts_alone"]
    rows = [
        ("real lenses", None, lenses),
        ("hosts without arcs", bare, bare),
        *((f"{rung['number']}  {_NAMES.get(rung['rung'], rung['rung'])}", rung["probe"], rung) for rung in rungs),
    ]
    height = _MARGINS.top + _MARGINS.bottom + settings.row_mm * len(rows)
    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, (left, right) = panel_row(2, height, _MARGINS, sharey=True)
        # Before notes are put in the middle.
        left.set_xlim(0.3, 1.02)
        right.set_xlim(0, 1)
        _floor(left, ladder.get("floor"))
        for place, (_, probe, row) in enumerate(rows):
            if probe is not None:
                draw_number(left, place, probe, COLOURS["blue"])
            draw_number(right, place, row["recall"].get(settings.threshold), COLOURS["orange"])
        left.set(xlabel="AUC of a linear probe against real lenses")
        left.axvline(0.5, color=GREY, linestyle=(0, (4, 2)), linewidth=0.7, zorder=0)
        right.set(xlabel=f"share found at {settings.threshold}")
        name_rows(left, [name for name, _, _ in rows])
        right.tick_params(axis="y", length=0)
    return figure


def _floor(axes: "Axes", floor: Mapping[str, Any] | None) -> None:
    """What a probe finds between hosts and hosts, where there is nothing to find."""
    if not floor or floor.get("value") is None:
        axes.set_title("hosts against hosts: not measured", color=GREY, fontsize=6)
        return
    if floor.get("interval"):
        axes.axvspan(*floor["interval"], color="0.88", linewidth=0, zorder=0)
    axes.axvline(floor["value"], color="0.6", linewidth=0.8, zorder=1)
    axes.set_title(f"grey: hosts against hosts, {floor['value']:.2f}", color=GREY, fontsize=6)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the ladder, draw, write."""
    parser = argument_parser("Draw how realistic injections are and how many are found, rung by rung.")
    parser.add_argument("--ladder", required=True, type=Path, help="ladder.json")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    figure = draw(read_json(arguments.ladder), load_settings(arguments.settings, LadderFigureSettings))
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
