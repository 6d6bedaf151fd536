"""Settings of completeness."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from dark_halo_scope.core.config import Settings

#: Axes of the completeness, in this order.
AXES = ("theta_e_arcsec", "z_phot", "psfsize_r", "psfdepth_r", "rmag", "lensed_mag_r")

#: Those of the smooth surface.
SURFACE_AXES = ("theta_e_arcsec", "z_phot")

_EDGES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5),
    "z_phot": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
    "psfsize_r": (0.7, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6),
    "psfdepth_r": (23.5, 23.8, 24.0, 24.2, 24.5, 25.0, 27.0),
    "rmag": (16.0, 18.0, 19.0, 19.5, 20.0, 20.5, 21.0, 22.0, 23.0),
    "lensed_mag_r": (18.0, 20.0, 20.5, 21.0, 21.5, 22.0, 22.5, 23.0, 24.0, 26.0),
}


class SurfaceSettings(Settings):
    """The smooth completeness over theta_E and redshift."""

    knots: tuple[int, int] = Field(default=(5, 4), description="of the cubic splines along each axis")
    penalty: float = Field(
        default=0.1, gt=0, description="on squared coefficients of the splines; larger is smoother and more biased"
    )
    fine_cells: tuple[int, int] = Field(default=(50, 40), description="into which injections are counted for the fit")
    grid: tuple[int, int] = Field(default=(41, 33), description="points of the table along each axis")
    weighted: bool = Field(default=False, description="whether injections count by sampling_weight")
    min_class: int = Field(default=20, ge=1, description="injections found, and not found, that a fit needs")
    bootstraps: int = Field(default=200, ge=2, description="host resamples, each fitted again")


def _known_and_increasing(edges: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    if set(edges) != set(AXES):
        raise ValueError(f"give edges of {', '.join(AXES)}, of each once and of nothing else")
    for name, values in edges.items():
        if len(values) < 2 or any(low >= high for low, high in pairwise(values)):
            raise ValueError(f"edges of {name} must be two or more and increase")
    return edges


EdgesByAxis = Annotated[
    dict[str, tuple[float, ...]],
    AfterValidator(_known_and_increasing),
    Field(description="by axis; a lower edge belongs to its bin, and the last edge to the last bin"),
]


class CellSettings(Settings):
    """In which cells injections are counted, and how sure a cell is."""

    edges: EdgesByAxis = _EDGES
    min_cell: int = Field(
        default=200, ge=1, description="injections below which a cell says `too few`; 200 give 7 points either way"
    )
    confidence: float = Field(default=0.95, gt=0, lt=1)
    bootstraps: int = Field(default=500, ge=2, description="host resamples of weighted means")
    surface: SurfaceSettings = SurfaceSettings()
    seed: int = Field(default=42, ge=0)


class CompletenessSettings(CellSettings):
    """Which detections count, in which cells, and how sure a cell is."""

    fpr_targets: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(1e-1, 1e-2, 1e-3), description="false positive rates of val's controls whose thresholds are used"
    )
