"""Settings of the selection function."""

import numpy as np
from pydantic import Field, field_validator

from dark_halo_scope.evaluation.completeness_config import CellSettings, EdgesByAxis

#: All cells are listed, the empty ones too, for each family and threshold: no file of theirs becomes too large to send.
MAX_CELLS = 20_000

# Coarser than those of completeness.csv: the default million of injections, 336,000 draws for each family, is 375 draws
# in each of 896 cells on average, and `min_cell` asks for 200.
_EDGES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
    "z_phot": (0.0, 0.3, 0.5, 0.7, 1.0),
    "psfsize_r": (0.7, 1.2, 1.6),
    "psfdepth_r": (23.5, 24.2, 27.0),
    "rmag": (16.0, 20.0, 23.0),
    "lensed_mag_r": (18.0, 21.0, 22.5, 24.0, 26.0),
}


class SelectionFunctionSettings(CellSettings):
    """In which cells recovered injections are counted, and how sure a cell is."""

    edges: EdgesByAxis = _EDGES
    thresholds: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="those of the frozen finder's card that are used; null: all"
    )

    @field_validator("edges")
    @classmethod
    def _not_too_many(cls, edges: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        cells = int(np.prod([len(values) - 1 for values in edges.values()]))
        if cells > MAX_CELLS:
            raise ValueError(f"these edges make {cells} cells, and every one is listed; make {MAX_CELLS} at most")
        return edges
