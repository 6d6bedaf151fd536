"""What an object is before it is observed: a sum of Sersic components, and what the catalogue needs beside them."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["lrg", "satellite", "field", "spiral", "edge_on", "ring", "merger", "star", "lens", "image"]


@dataclass(frozen=True)
class Component:
    """A Sersic profile; n = 0.5 is a Gaussian, r_e = 0 a point."""

    flux: NDArray[np.float64]
    """(3,) nanomaggies in g, r, z."""
    r_e: float
    """Half-light radius, product average of the axes, arcsec."""
    n: float = 1.0
    q: float = 1.0
    phi: float = 0.0
    """Position angle of the major axis, counter-clockwise from +x of the array, radians."""
    dx: float = 0.0
    dy: float = 0.0
    """Offset from the object, arcsec along +x and +y of the array."""


@dataclass(frozen=True)
class SkyObject:
    """One object; the catalogue sees one Sersic profile (r_e, n, q, phi) whatever its components."""

    kind: Kind
    x: float
    y: float
    """Zero-based pixel of the brick."""
    redshift: float
    components: tuple[Component, ...]
    w1: float
    """Observed flux in W1, nanomaggies."""
    r_e: float
    n: float
    q: float = 1.0
    phi: float = 0.0
    extra_flux: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """(3,) nanomaggies that the catalogue's flux includes and the components do not: blended light drawn elsewhere."""
    drawn: bool = True
    """False for a catalogue entry whose light another step draws."""

    @property
    def flux(self) -> NDArray[np.float64]:
        """(3,) nanomaggies in g, r, z."""
        return np.sum([c.flux for c in self.components], axis=0) + self.extra_flux


def galaxy(
    kind: Kind,
    x: float,
    y: float,
    redshift: float,
    flux: NDArray[np.float64],
    w1: float,
    r_e: float,
    n: float,
    q: float,
    phi: float,
) -> SkyObject:
    """A galaxy of a single Sersic profile."""
    return SkyObject(kind, x, y, redshift, (Component(flux, r_e, n, q, phi),), w1, r_e, n, q, phi)
