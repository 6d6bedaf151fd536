"""What all figures share: typography, colours that the colour-blind tell apart, deterministic files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dark_halo_scope.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito (2008): told apart by all common forms of colour blindness.
COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "purple": "#CC79A7"}

RC_PARAMS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.hashsalt": "dark_halo_scope",
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


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG or PDF whose bytes depend on the picture alone: no date, no software version."""
    metadata: dict[str, str | None] = (
        {"Software": None} if path.suffix == ".png" else {"CreationDate": None, "Producer": None, "Creator": None}
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, bbox_inches="tight")
