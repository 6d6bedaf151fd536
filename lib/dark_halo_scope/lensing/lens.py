"""The lens: a singular or cored isothermal ellipsoid in an external shear."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Lens:
    """SIE with shear, in the stamp's frame (arcsec, x = column, y = row, origin at the stamp's centre).

    The shear acts about the lens centre, so that moving lens and source together moves the image.

    Attributes:
        theta_e: Einstein radius, arcsec: product average, kappa = theta_e / (2 sqrt(q x^2 + y^2 / q)); 0 is no lens.
        q: axis ratio of the convergence, 0 < q <= 1.
        phi: angle of the major axis, rad, counter-clockwise from +x.
        g1, g2: external shear.
        x, y: centre, arcsec.
        core: Keeton's core radius s, arcsec.

    Raises:
        ValueError: a parameter is not finite or out of its range.
    """

    theta_e: float
    q: float = 1.0
    phi: float = 0.0
    g1: float = 0.0
    g2: float = 0.0
    x: float = 0.0
    y: float = 0.0
    core: float = 0.0

    def __post_init__(self) -> None:
        values = (self.theta_e, self.q, self.phi, self.g1, self.g2, self.x, self.y, self.core)
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"A lens has a parameter that is not finite: {self}.")
        if self.theta_e < 0 or self.core < 0 or not 0 < self.q <= 1 or math.hypot(self.g1, self.g2) >= 1:
            raise ValueError(f"A lens needs theta_e >= 0, core >= 0, 0 < q <= 1 and a shear below 1: {self}.")
