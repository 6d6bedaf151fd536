"""Figure 2: a positive, its control and its hard negative as the network gets them, channel by channel."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.pairs import true_theta_e
from dark_halo_scope.images.packed import PackedSplit, open_packed
from dark_halo_scope.paper.figure_config import SixChannelsSettings
from dark_halo_scope.paper.layout import Margins, picture_grid
from dark_halo_scope.paper.style import COLOURS, PAPER_RC_PARAMS, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dark_halo_scope.images.preprocess import Preprocess6CH

FloatArray = NDArray[np.float32]

KINDS = ("positive", "control", "hard negative")
_BANDS = ("g", "r", "z")
_BAR_MM = 9.0


def choose_pair(
    theta_e_arcsec: NDArray[np.float64], arc_snr: NDArray[np.float64], settings: SixChannelsSettings
) -> int:
    """The pair with a bright arc whose Einstein radius is nearest to the one asked for; the first of equals.

    Args:
        theta_e_arcsec: (N,) Einstein radius.
        arc_snr: (N,) matched-filter signal to noise.
        settings: which pair is wanted.

    Raises:
        BadInputError: no arc is bright enough.
    """
    bright = np.flatnonzero(arc_snr >= settings.min_arc_snr)
    if not len(bright):
        raise BadInputError(
            f"No pair has arc_snr >= {settings.min_arc_snr:g}: lower min_arc_snr in the figure's settings."
        )
    return int(bright[np.argmin(np.abs(theta_e_arcsec[bright] - settings.theta_e_arcsec))])


def channels(preprocess: "Preprocess6CH", stamps_K3HW: FloatArray, control_3HW: FloatArray) -> FloatArray:
    """(K, C, H, W) channels of the network from stamps in nanomaggies per pixel.

    `control_3HW` is the image without an arc, which only a diagnostic network looks at.
    """
    import torch

    with torch.inference_mode():
        controls = torch.from_numpy(np.repeat(control_3HW[None], len(stamps_K3HW), axis=0))
        made: FloatArray = preprocess(torch.from_numpy(stamps_K3HW), controls).numpy()
    return made


def channel_titles(preprocess: "Preprocess6CH") -> list[str]:
    """What each channel is, in the order of the network."""
    settings = preprocess.settings
    groups = ["{}"] + ["{} residual"] * settings.residual + ["{} control"] * (settings.control_source is not None)
    return [group.format(f"${band}$") for group in groups for band in _BANDS]


def draw(
    channels_KCHW: FloatArray, titles: Sequence[str], label: str, seen_pix: int | None, settings: SixChannelsSettings
) -> "Figure":
    """One row a kind of image, one column a channel, one scale for the bands and one for what follows them.

    Args:
        channels_KCHW: of the positive, the control and the hard negative.
        titles: of the channels.
        label: what the pair is.
        seen_pix: side of the middle that the network cuts out, marked where it is smaller than the stamp.
        settings: of the figure.
    """
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    count, size = channels_KCHW.shape[1], channels_KCHW.shape[-1]
    with mpl.rc_context(PAPER_RC_PARAMS):
        figure, axes = picture_grid(
            len(KINDS), count, Margins(left=3.5, right=0.2, top=4.5, bottom=_BAR_MM, gap=0.8, row_gap=0.8)
        )
        groups = [range(start, min(start + 3, count)) for start in range(0, count, 3)]
        for number, group in enumerate(groups):
            values = channels_KCHW[:, list(group)]
            if number and titles[group[0]].endswith("residual"):
                limit = float(np.percentile(np.abs(values), settings.shown_percentile))
                scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            else:
                low = 100 - settings.shown_percentile
                scale = dict(
                    zip(("vmin", "vmax"), np.percentile(values, [low, settings.shown_percentile]), strict=True)
                ) | {"cmap": "gray_r"}
            for column in group:
                for row in range(len(KINDS)):
                    image = axes[row, column].imshow(
                        channels_KCHW[row, column], origin="lower", interpolation="nearest", **scale
                    )
            left, right = axes[-1, group[0]].get_position(), axes[-1, group[-1]].get_position()
            height = figure.get_figheight() * 25.4
            place = (left.x0, (_BAR_MM - 3.0) / height, right.x1 - left.x0, 1.8 / height)
            bar = figure.colorbar(image, cax=figure.add_axes(place), orientation="horizontal")
            bar.ax.tick_params(length=1.5, pad=1.5, top=False)
            bar.outline.set_linewidth(0.4)
        for column, title in enumerate(titles):
            axes[0, column].set_title(title)
        for row, kind in enumerate(KINDS):
            axes[row, 0].set_ylabel(kind, labelpad=2)
        box = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1.0}
        axes[0, 0].text(0.03, 0.03, label, transform=axes[0, 0].transAxes, fontsize=5.5, va="bottom", bbox=box)
        if seen_pix is not None and seen_pix < size:
            edge = (size - seen_pix) / 2 - 0.5
            for axis in axes.flat:
                axis.add_patch(
                    Rectangle((edge, edge), seen_pix, seen_pix, fill=False, color=COLOURS["orange"], linewidth=0.5)
                )
    return figure


def _images(split: PackedSplit, row: int) -> FloatArray:
    """(3, 3, H, W): the positive, the control and the hard negative of a pair."""
    return np.stack(
        [np.asarray(array[row], np.float32) for array in (split.positive, split.control, split.hard_negative)]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Read one pair and the network's preprocessing, draw."""
    parser = argument_parser("Draw a positive, its control and its hard negative as the network gets them.")
    parser.add_argument("--packed", type=Path, required=True, help="manifest of the packed images")
    parser.add_argument("--model", type=Path, required=True, help="best.json of the network")
    parser.add_argument("--output", type=Path, required=True, nargs="+", help="PNG or PDF; several are one picture")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, SixChannelsSettings)
    # Here, so that the settings and drawing need no torch.
    from dark_halo_scope.models.weights import load_model

    model, preprocess, _ = load_model(arguments.model)
    split = open_packed(arguments.packed, settings.split)
    theta_e, snr = true_theta_e(split.rows), split.rows["arc_snr"].to_numpy()
    row = choose_pair(theta_e, snr, settings)
    images = _images(split, row)
    label = f"$\\theta_E$ = {theta_e[row]:.2f}″\nS/N {snr[row]:.0f}"
    figure = draw(
        channels(preprocess, images, images[1]),
        channel_titles(preprocess),
        label,
        model.settings.crop_pix,
        settings,
    )
    for path in arguments.output:
        save_figure(figure, path, tight=False)


if __name__ == "__main__":
    run(main)
