"""Settings of the selection function."""

from itertools import pairwise

import numpy as np
from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.completeness_config import AXES, CompletenessSettings, SurfaceSettings

#: All cells are listed, the empty ones too, for each family and threshold: no file of theirs becomes too large to send.
MAX_CELLS = 20_000

# Coarser than those of completeness.csv: a million injections are 130 in each of 7,560 cells.
_EDGES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
    "z_phot": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "psfsize_r": (0.7, 1.1, 1.3, 1.6),
    "psfdepth_r": (23.5, 24.0, 24.5, 27.0),
    "rmag": (16.0, 19.0, 20.0, 21.0, 23.0),
    "lensed_mag_r": (18.0, 20.0, 21.0, 22.0, 23.0, 24.0, 26.0),
}


class SelectionFunctionSettings(Settings):
    """In which cells recovered injections are counted, and how sure a cell is."""

    edges: dict[str, tuple[float, ...]] = Field(
        default=_EDGES, description="by axis; a lower edge belongs to its bin, and the last edge to the last bin"
    )
    thresholds: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="those of the frozen finder's card that are used; null: all"
    )
    min_cell: int = Field(
        default=200, ge=1, description="injections below which a cell says `too few`; 200 give 7 points either way"
    )
    confidence: float = Field(default=0.95, gt=0, lt=1)
    bootstraps: int = Field(default=500, ge=2, description="host resamples of weighted means")
    surface: SurfaceSettings = SurfaceSettings()
    seed: int = Field(default=42, ge=0)

    @field_validator("edges")
    @classmethod
    def _known_and_not_too_many(cls, edges: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        if set(edges) != set(AXES):
            raise ValueError(f"give edges of {', '.join(AXES)}, of each once and of nothing else")
        for name, values in edges.items():
            if len(values) < 2 or any(low >= high for low, high in pairwise(values)):
                raise ValueError(f"edges of {name} must be two or more and increase")
        cells = int(np.prod([len(values) - 1 for values in edges.values()]))
        if cells > MAX_CELLS:
            raise ValueError(f"these edges make {cells} cells, and every one is listed; make {MAX_CELLS} at most")
        return edges

    @property
    def completeness(self) -> CompletenessSettings:
        """The same for what the completeness of a generation measures as well."""
        shared = ("edges", "min_cell", "confidence", "bootstraps", "surface", "seed")
        return CompletenessSettings(**{name: getattr(self, name) for name in shared})
