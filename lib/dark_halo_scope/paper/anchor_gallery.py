"""Figure 5: known lenses with the probability that the network gives them, found ones and missed ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.cutouts import open_cutouts
from dark_halo_scope.paper.figure_config import AnchorGallerySettings
from dark_halo_scope.paper.layout import Margins, picture_grid
from dark_halo_scope.paper.small_csv import flags, numbers, read_columns
from dark_halo_scope.paper.style import COLOURS, PAPER_RC_PARAMS, lupton_rgb, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOUND, _MISSED = COLOURS["sky"], COLOURS["orange"]


@dataclass(frozen=True)
class Anchors:
    """Known lenses that were scored, without the stress lists.

    names: of each. score: (N,) probability. theta_e: (N,) arcsec, NaN where unknown. tier: of each, empty where none.
    image: (N,) place in the array of cutouts.
    """

    names: list[str]
    score: NDArray[np.float64]
    theta_e: NDArray[np.float64]
    tier: list[str]
    image: NDArray[np.int64]


@dataclass(frozen=True)
class Strip:
    """Pictures of one kind: which of the anchors are shown, and of how many."""

    title: str
    shown: NDArray[np.intp]
    total: int
    colour: str


def read_anchors(path: Path, tier: str) -> Anchors:
    """Anchors of an anchors.csv but those of stress lists.

    Raises:
        BadInputError: the file is missing or lacks a column, such as the tier's.
        CorruptDataError: a number is none.
    """
    columns = read_columns(path, ("name", tier, "stress", "theta_e_arcsec", "score", "cutout_row"))
    kept = np.flatnonzero(~flags(columns["stress"]))
    score = numbers(path, "score", columns["score"])
    row = numbers(path, "cutout_row", columns["cutout_row"])
    if not (np.isfinite(score[kept]).all() and np.isfinite(row[kept]).all()):
        raise BadInputError(f"{path} has anchors without a score or a cutout; evaluate the anchors again.")
    return Anchors(
        names=[columns["name"][i] for i in kept],
        score=score[kept],
        theta_e=numbers(path, "theta_e_arcsec", columns["theta_e_arcsec"])[kept],
        tier=[columns[tier][i] for i in kept],
        image=row[kept].astype(np.int64),
    )


def strips(anchors: Anchors, settings: AnchorGallerySettings) -> list[Strip]:
    """The first tier's found and missed lenses, then the others', each spread evenly in rank of p: none is picked.

    Raises:
        BadInputError: there is no anchor at all.
    """
    if not len(anchors.score):
        raise BadInputError("There is no scored anchor: the survey's footprint holds no known lens with a cutout.")
    found = anchors.score >= settings.threshold
    first = np.array([tier == settings.first for tier in anchors.tier], dtype=np.bool_)
    kinds = (
        (f"Tier {settings.first}, found", first & found, _FOUND),
        (f"Tier {settings.first}, missed", first & ~found, _MISSED),
        ("others, found", ~first & found, _FOUND),
        ("others, missed", ~first & ~found, _MISSED),
    )
    made = []
    for (title, members, colour), rows in zip(kinds, settings.rows, strict=True):
        ranked = np.flatnonzero(members)
        # By falling p, and by name where equal, so that the order of a file does not matter.
        ranked = ranked[np.lexsort((np.array([anchors.names[i] for i in ranked]), -anchors.score[ranked]))]
        count = min(rows * settings.columns, len(ranked))
        if count:
            shown = ranked[((np.arange(count) + 0.5) / count * len(ranked)).astype(int)]
            made.append(Strip(title, shown, len(ranked), colour))
    return made


def draw(images_N3HW: np.ndarray, anchors: Anchors, settings: AnchorGallerySettings) -> "Figure":
    """Strips of pictures below one another, each with its title, p and Einstein radius in the pictures.

    Args:
        images_N3HW: all cutouts, nanomaggies per pixel; `anchors.image` points into them.
        anchors: to choose from.
        settings: of the figure.

    Raises:
        BadInputError: there is no anchor.
    """
    import matplotlib as mpl

    wanted = strips(anchors, settings)
    lines = [
        (strip, strip.shown[start : start + settings.columns], start == 0)
        for strip in wanted
        for start in range(0, len(strip.shown), settings.columns)
    ]
    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, axes = picture_grid(
            len(lines), settings.columns, Margins(left=6.0, right=0.4, top=0.6, bottom=0.4, gap=0.8, row_gap=1.0)
        )
        for line, (strip, members, _) in enumerate(lines):
            for column in range(settings.columns):
                axis = axes[line, column]
                if column >= len(members):
                    axis.set_axis_off()
                    continue
                index = members[column]
                stamp = _middle(np.asarray(images_N3HW[anchors.image[index]], np.float32), settings.crop_pix)
                picture = lupton_rgb(stamp, settings.stretch, settings.softening)
                axis.imshow(picture, origin="lower", interpolation="nearest")
                for spine in axis.spines.values():
                    spine.set(color=strip.colour, linewidth=1.2)
                inside = {"transform": axis.transAxes, "color": "white", "fontsize": 5.5}
                axis.text(0.04, 0.96, f"$p$ = {anchors.score[index]:.2f}", va="top", **inside)
                if np.isfinite(anchors.theta_e[index]):
                    axis.text(0.04, 0.04, f"$\\theta_E$ = {anchors.theta_e[index]:.2f}″", **inside)
        _titles(axes, lines)
    return figure


def _titles(axes: np.ndarray, lines: Sequence[tuple[Strip, NDArray[np.intp], bool]]) -> None:
    """What a strip is and how many there are, along its rows."""
    for number, (strip, _, starts) in enumerate(lines):
        if starts:
            rows = sum(line[0] is strip for line in lines)
            text = f"{strip.title}: {len(strip.shown)} of {strip.total}"
            top, bottom = axes[number, 0].get_position(), axes[number + rows - 1, 0].get_position()
            figure = axes[0, 0].figure
            middle = (top.y1 + bottom.y0) / 2
            options = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 6}
            figure.text(top.x0 * 0.45, middle, text if rows > 1 else text.replace(": ", ":\n"), **options)


def _middle(stamp_3HW: np.ndarray, side: int) -> np.ndarray:
    edge = max(0, (stamp_3HW.shape[-1] - side) // 2)
    return stamp_3HW[:, edge : stamp_3HW.shape[-2] - edge, edge : stamp_3HW.shape[-1] - edge]


def main(argv: Sequence[str] | None = None) -> None:
    """Read anchors and their cutouts, choose, draw."""
    parser = argument_parser("Draw known lenses with the probability that a network gives them.")
    parser.add_argument("--anchors", type=Path, required=True, help="anchors.csv")
    parser.add_argument("--cutouts", type=Path, required=True, help="cutouts.json of the same anchors")
    parser.add_argument("--output", type=Path, required=True, nargs="+", help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, AnchorGallerySettings)
    images, rows = open_cutouts(arguments.cutouts)
    anchors = read_anchors(arguments.anchors, settings.tier)
    names = rows["name"].to_pylist()
    if any(not 0 <= i < len(names) or names[i] != name for i, name in zip(anchors.image, anchors.names, strict=True)):
        raise BadInputError(f"{arguments.anchors} is of other cutouts than {arguments.cutouts}; evaluate them again.")
    figure = draw(images, anchors, settings)
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
