"""What all figures share: typography, colours that the colour-blind tell apart, deterministic files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dark_halo_scope.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito (2008): told apart by all common forms of colour blindness.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
}

#: For what is not data: notes, null distributions, lines of reference.
GREY = "#666666"

#: Width of a page of MNRAS, millimetres.
PAGE_MM = 174.0
_MM_PER_INCH = 25.4

RC_PARAMS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.hashsalt": "dark_halo_scope",
}

#: Of the paper's figures, which are printed at the size at which they are drawn.
PAPER_RC_PARAMS: Any = RC_PARAMS | {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "lines.linewidth": 1.0,
}

#: Flux of z, r, g relative to r at which a luminous red galaxy at z ~ 0.5 looks neutral white-orange.
CHANNEL_WEIGHTS_ZRG = (0.55, 1.0, 2.2)


def lupton_rgb(stamp_3HW: np.ndarray, stretch: float, softening: float) -> np.ndarray:
    """Colour picture of a stamp.

    Args:
        stamp_3HW: g, r, z in nanomaggies per pixel.
        stretch: linear range in nanomaggies per pixel of the r band.
        softening: Q of Lupton et al. (2004, PASP 116, 133).

    Returns:
        (H, W, 3) uint8.
    """
    from astropy.visualization import make_lupton_rgb

    g, r, z = np.asarray(stamp_3HW, dtype=np.float32)
    red, green, blue = (band * weight for band, weight in zip((z, r, g), CHANNEL_WEIGHTS_ZRG, strict=True))
    # Where all three bands are dark, astropy divides nothing by nothing and masks the result.
    with np.errstate(invalid="ignore"):
        return make_lupton_rgb(red, green, blue, stretch=stretch, Q=softening)


def figure_size(width_mm: float, height_mm: float) -> tuple[float, float]:
    """Width and height in inches, as Matplotlib wants them."""
    return width_mm / _MM_PER_INCH, height_mm / _MM_PER_INCH


def save_figure(figure: "Figure", path: Path, tight: bool = True) -> None:
    """Write a PNG or PDF whose bytes depend on the picture alone: no date, no software version.

    `tight` cuts white margins off; without it the file has the figure's size, as a column of a journal wants it.
    """
    metadata: dict[str, str | None] = (
        {"Software": None} if path.suffix == ".png" else {"CreationDate": None, "Producer": None, "Creator": None}
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, bbox_inches="tight" if tight else None)
