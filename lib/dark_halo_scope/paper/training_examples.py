"""Figure 1: positives, their controls, their hard negatives, and what sets the three apart."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.pairs import true_theta_e
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.paper.config import TrainingExamplesSettings
from dark_halo_scope.paper.layout import picture_grid
from dark_halo_scope.paper.style import PAPER_RC_PARAMS, lupton_rgb, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("positive", "control", "hard negative", "pos. − control", "hard neg. − control", "pos., high-pass")
RESIDUAL_SIGMA_PIX = 3.0  # what the residual channels of Gen5-Prime subtract (plan of 2026-02-05)


def choose_rows(theta_e_arcsec: np.ndarray, arc_snr: np.ndarray, count: int, min_arc_snr: float) -> np.ndarray:
    """Rows spread evenly in rank of theta_E among the arcs that a reader can see.

    Args:
        theta_e_arcsec: (N,) Einstein radius.
        arc_snr: (N,) matched-filter signal to noise.
        count: number of rows wanted.
        min_arc_snr: rows below are not shown.

    Returns:
        (count,) indices by increasing theta_E.

    Raises:
        BadInputError: fewer than `count` rows are bright enough.
    """
    bright = np.flatnonzero(arc_snr >= min_arc_snr)
    if len(bright) < count:
        raise BadInputError(
            f"Only {len(bright)} pairs have arc_snr >= {min_arc_snr:g}, and the figure shows {count}: "
            "lower min_arc_snr or pairs in its settings."
        )
    ordered = bright[np.argsort(theta_e_arcsec[bright], kind="stable")]
    return ordered[((np.arange(count) + 0.5) / count * len(ordered)).astype(int)]


def draw(
    images: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    labels: Sequence[str],
    settings: TrainingExamplesSettings,
):
    """The figure: one row a pair of (positive, control, hard negative), each (3, H, W) in nanomaggies."""
    import matplotlib as mpl

    def picture(axis: "Axes", stamp: np.ndarray, stretch: float) -> None:
        axis.imshow(lupton_rgb(stamp, stretch, settings.softening), origin="lower", interpolation="nearest")

    # What is left when a host is taken away is fainter than the host.
    faint = settings.stretch / 2
    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, axes = picture_grid(len(images), len(COLUMNS))
        for row, (positive, control, hard_negative) in enumerate(images):
            for column, stamp in enumerate((positive, control, hard_negative)):
                picture(axes[row, column], stamp, settings.stretch)
            picture(axes[row, 3], positive - control, faint)
            picture(axes[row, 4], hard_negative - control, faint)
            residual = positive - gaussian_filter(positive, (0, RESIDUAL_SIGMA_PIX, RESIDUAL_SIGMA_PIX))
            picture(axes[row, 5], residual, faint)
            axes[row, 0].text(2, 2, labels[row], color="white", fontsize=6, va="bottom")
        for column, title in enumerate(COLUMNS):
            axes[0, column].set_title(title)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Read the packed images, choose the rows, draw."""
    parser: argparse.ArgumentParser = argument_parser(__doc__ or "")
    parser.add_argument("--packed", type=Path, required=True, help="manifest of the packed images")
    parser.add_argument(
        "--output", type=Path, required=True, nargs="+", help="PNG or PDF; several are the same picture"
    )
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, TrainingExamplesSettings)
    split = open_packed(arguments.packed, settings.split)
    rows, theta_e = split.rows.to_pandas(), true_theta_e(split.rows)
    chosen = choose_rows(theta_e, rows["arc_snr"].to_numpy(), settings.pairs, settings.min_arc_snr)
    images = [
        (
            np.asarray(split.positive[i], np.float32),
            np.asarray(split.control[i], np.float32),
            np.asarray(split.hard_negative[i], np.float32),
        )
        for i in chosen
    ]
    labels = [f"$\\theta_E$ = {theta_e[i]:.2f}″, S/N {rows['arc_snr'][i]:.0f}" for i in chosen]
    figure = draw(images, labels, settings)
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
