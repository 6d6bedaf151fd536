"""A page of a network's worst errors: galaxies it takes for lenses, and lenses it misses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.images.cutouts import open_cutouts
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.paper.errors_config import ErrorsPageSettings
from dark_halo_scope.paper.layout import Margins, picture_grid
from dark_halo_scope.paper.small_csv import flags, numbers, read_columns
from dark_halo_scope.paper.style import COLOURS, PAPER_RC_PARAMS, lupton_rgb, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Group of errors.csv -> title of its row, and what of realism.json counts how many there are.
_TITLES: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "control taken for a lens": ("galaxies\nwithout arcs", ("negatives", "control"), "called_lenses"),
    "hard negative taken for a lens": ("shuffled\narcs", ("negatives", "hard_negative"), "called_lenses"),
    "negative taken for a lens": ("unpaired\nnegatives", ("negatives", "negative"), "called_lenses"),
    "missed injection": ("resolved\ninjections", ("injections",), "missed"),
    "missed lens": ("known lenses", ("lenses",), "missed"),
}
_ERROR, _RIGHT = COLOURS["orange"], "#777777"
_NAME_LENGTH = 8
_SMALLEST_P = 0.01


@dataclass(frozen=True)
class Picture:
    """One image of the page.

    image: (3, H, W) nanomaggies per pixel.
    score: probability of being a lens. is_error: whether that is on the wrong side of the threshold.
    name: of the galaxy, short. note: what else is known of it.
    """

    image: NDArray[np.floating]
    score: float
    is_error: bool
    name: str
    note: str


@dataclass(frozen=True)
class Row:
    """Images of one kind of error, the worst first, and how many errors there are among how many."""

    title: str
    errors: int
    total: int
    pictures: Sequence[Picture]


def gather(
    errors: Path,
    realism: Mapping[str, Any],
    images: Mapping[str, NDArray[np.floating]],
    settings: ErrorsPageSettings,
) -> list[Row]:
    """Rows of the page, in the order of errors.csv.

    Args:
        errors: errors.csv.
        realism: realism.json, made together with it.
        images: (N, 3, H, W) arrays by kind, and those of `lens`.
        settings: of the page.

    Raises:
        BadInputError: a column or an image is missing, or there is no error at all.
        CorruptDataError: a number is none.
    """
    names = ("group", "kind", "name", "theta_e_arcsec", "arc_snr", "class", "score", "is_error", "row")
    cells = read_columns(errors, names)
    known = {name: numbers(errors, name, cells[name]) for name in ("theta_e_arcsec", "arc_snr", "score", "row")}
    wrong = flags(cells["is_error"])
    rows = []
    for group in dict.fromkeys(cells["group"]):
        title, path, counted = _TITLES[group]
        counts = realism["errors"]
        for key in path:
            counts = counts[key]
        if "tier" in counts:
            title = f"{title}\n({counts['tier'].replace('_', ' ')})"
        places = [index for index, name in enumerate(cells["group"]) if name == group][: settings.columns]
        pictures = []
        for index in places:
            kind, row = cells["kind"][index], int(known["row"][index])
            if kind not in images or not 0 <= row < len(images[kind]):
                raise BadInputError(f"{errors} names image {row} of {kind}, which there is not; measure realism again.")
            pictures.append(
                Picture(
                    np.asarray(images[kind][row], np.float32),
                    float(known["score"][index]),
                    bool(wrong[index]),
                    _short(cells["name"][index]),
                    _note(kind, cells["class"][index], known["theta_e_arcsec"][index], known["arc_snr"][index]),
                )
            )
        rows.append(Row(title, int(counts[counted]), int(counts["n"]), pictures))
    if not rows:
        raise BadInputError(f"{errors} lists no image; measure realism with scores and cutouts.")
    return rows


def _short(name: str) -> str:
    """A name that fits into a picture: hashes by their beginning, names of the sky as they are."""
    return name[:_NAME_LENGTH] if len(name) == 64 else name.removeprefix("DESI-")


def _note(kind: str, of_class: str, theta_e: float, arc_snr: float) -> str:
    """Of an arc its Einstein radius and signal to noise, of a galaxy of a class that class."""
    if kind == "control":
        return ""
    if kind == "negative":
        return of_class.replace("_", " ")
    noise = f", S/N {arc_snr:.0f}" if np.isfinite(arc_snr) else ""
    return f"$\\theta_E$ {theta_e:.1f}″{noise}" if np.isfinite(theta_e) else ""


def draw(rows: Sequence[Row], settings: ErrorsPageSettings) -> "Figure":
    """The page: a row a kind of error; what is on the wrong side of the threshold is framed in orange."""
    import matplotlib as mpl

    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, axes = picture_grid(
            len(rows), settings.columns, Margins(left=17.0, right=0.4, top=0.6, bottom=0.6, gap=0.7, row_gap=1.0)
        )
        for line, row in enumerate(rows):
            for column in range(settings.columns):
                if column < len(row.pictures):
                    _picture(axes[line, column], row.pictures[column], settings)
                else:
                    axes[line, column].set_axis_off()
            place = axes[line, 0].get_position()
            verb = "missed" if row.title.startswith(("resolved", "known")) else "called lenses"
            text = f"{row.title}\n\n{row.errors} of {row.total}\n{verb}"
            options: Any = {"ha": "left", "va": "center", "fontsize": 6, "linespacing": 1.15}
            figure.text(0.003, (place.y0 + place.y1) / 2, text, **options)
    return figure


def _picture(axes: "Axes", shown: Picture, settings: ErrorsPageSettings) -> None:
    from matplotlib.patheffects import withStroke

    edge = max(0, (shown.image.shape[-1] - settings.crop_pix) // 2)
    stamp = shown.image[:, edge : shown.image.shape[-2] - edge, edge : shown.image.shape[-1] - edge]
    axes.imshow(lupton_rgb(stamp, settings.stretch, settings.softening), origin="lower", interpolation="nearest")
    for spine in axes.spines.values():
        spine.set(color=_ERROR if shown.is_error else _RIGHT, linewidth=1.2)
    # A dark edge, because text may lie on a galaxy.
    edged = [withStroke(linewidth=0.9, foreground="black")]
    inside: Any = {"transform": axes.transAxes, "color": "white", "linespacing": 1.05, "path_effects": edged}
    p = f"= {shown.score:.2f}" if shown.score >= _SMALLEST_P else f"< {_SMALLEST_P:g}"
    axes.text(0.04, 0.96, f"$p$ {p}", va="top", fontsize=5.5, **inside)
    axes.text(0.04, 0.04, "\n".join(text for text in (shown.note, shown.name) if text), fontsize=4.8, **inside)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the errors and their images, draw."""
    parser = argument_parser("Draw a network's worst errors: what it takes for lenses, and which lenses it misses.")
    parser.add_argument("--errors", type=Path, required=True, help="errors.csv")
    parser.add_argument("--realism", type=Path, required=True, help="realism.json, written with it")
    parser.add_argument("--packed", type=Path, required=True, help="packed.json of the images that were scored")
    parser.add_argument("--cutouts", type=Path, required=True, help="cutouts.json of the known lenses")
    parser.add_argument("--output", type=Path, required=True, nargs="+", help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, ErrorsPageSettings)
    realism = read_json(arguments.realism)
    split = open_packed(arguments.packed, realism["split"])
    images: dict[str, NDArray[np.floating]] = {
        "positive": split.positive,
        "control": split.control,
        "hard_negative": split.hard_negative,
        "negative": split.negative,
        "lens": open_cutouts(arguments.cutouts)[0],
    }
    figure = draw(gather(arguments.errors, realism, images, settings), settings)
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
