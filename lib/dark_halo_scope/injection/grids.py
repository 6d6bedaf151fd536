"""Grids of injection parameters, as earlier datasets used them.

A grid has no source position and no colours: those, and the orientation of everything, come from the prior.
"""

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class GridPoint:
    """One cell of a grid.

    Attributes:
        theta_e: Einstein radius, arcsec.
        dmag: source magnitude less host magnitude in r; `dmag_mode` says whether the source is lensed.
        reff: half-light radius of the source, arcsec.
        src_e: ellipticity (1 - q)/(1 + q) of the source.
        shear: external shear.
    """

    theta_e: float
    dmag: float
    reff: float
    src_e: float
    shear: float

    @property
    def config_id(self) -> str:
        """Name of the cell, which goes into the task's identity."""
        return f"te{self.theta_e:g}_dm{self.dmag:g}_re{self.reff:g}_e{self.src_e:g}_g{self.shear:g}"


@dataclass(frozen=True)
class Grid:
    """The values of each parameter; the grid is their product, last parameter fastest."""

    theta_e: tuple[float, ...]
    dmag: tuple[float, ...]
    reff: tuple[float, ...]
    src_e: tuple[float, ...]
    shear: tuple[float, ...]

    def points(self) -> tuple[GridPoint, ...]:
        """Every cell in order."""
        return tuple(GridPoint(*values) for values in product(*(getattr(self, name) for name in _AXES)))


_AXES = ("theta_e", "dmag", "reff", "src_e", "shear")

GRIDS: dict[str, Grid] = {
    # grid_small, the grid of v3_color_relaxed: 48 cells.
    "small": Grid((0.3, 0.6, 1.0), (1.0, 2.0), (0.08, 0.15), (0.0, 0.3), (0.0, 0.03)),
    # 360 cells.
    "medium": Grid((0.25, 0.35, 0.5, 0.8, 1.2), (0.5, 1.0, 1.5, 2.0), (0.05, 0.1, 0.2), (0.0, 0.2, 0.4), (0.0, 0.03)),
    # grid_sota as the code of v4_sota has it: 1,008 cells.
    "sota": Grid(
        (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5),
        (0.5, 1.0, 1.5, 2.0),
        (0.06, 0.1, 0.15, 0.2),
        (0.0, 0.2, 0.4),
        (0.0, 0.02, 0.04),
    ),
    # grid_sota as the project handoff describes it: 648 cells.
    "sota_handoff": Grid(
        (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5),
        (0.5, 1.0, 1.5, 2.0),
        (0.05, 0.1, 0.2),
        (0.0, 0.2, 0.4),
        (0.0, 0.03),
    ),
}
