"""Deflection angles, on NumPy and torch arrays alike.

Frame: arcsec, x = column, y = row, angles counter-clockwise from +x. Sources: Kormann, Schneider & Bartelmann (1994),
A&A 284, 285; Keeton (2001), astro-ph/0102341, eqs 33-35.
"""

import array_api_compat

from dark_halo_scope.lensing.arrays import Array, constants
from dark_halo_scope.lensing.lens import Lens

# f^2 = 1 - q^2 is kept above this: atan(f z)/f and atanh(f z)/f are then z to the last bit, and q = 1 needs no branch.
_SMALLEST_F2 = 1e-18


def sie(
    x: Array, y: Array, theta_e: Array | float, q: Array | float, phi: Array | float, core: Array | float = 0.0
) -> tuple[Array, Array]:
    """Deflection of an isothermal ellipsoid at the origin (Keeton 2001 eqs 34-35 with b = theta_e sqrt(q)).

    Args:
        x, y: positions, arcsec, of any one shape.
        theta_e: product-average Einstein radius, arcsec.
        q: axis ratio, 0 < q <= 1.
        phi: angle of the major axis, rad.
        core: Keeton's core radius s, arcsec; lenstronomy's s_scale is s sqrt(q).

    Returns:
        alpha_x, alpha_y, arcsec, of the positions' shape; zero at the centre of a singular lens.
    """
    xp = array_api_compat.array_namespace(x, y)
    theta_e, q, phi, core = constants(x, theta_e, q, phi, core)
    tiny = xp.finfo(x.dtype).tiny
    cos, sin = xp.cos(phi), xp.sin(phi)
    major, minor = cos * x + sin * y, cos * y - sin * x
    f = xp.sqrt(xp.maximum((1 - q) * (1 + q), xp.zeros_like(q) + _SMALLEST_F2))
    psi = xp.sqrt(q * q * (core * core + major * major) + minor * minor)
    scale = theta_e * xp.sqrt(q) / f
    alpha_major = scale * xp.atan(f * major / (psi + core + tiny))
    alpha_minor = scale * xp.atanh(f * minor / (psi + q * q * core + tiny))
    return cos * alpha_major - sin * alpha_minor, sin * alpha_major + cos * alpha_minor


def shear(x: Array, y: Array, g1: Array | float, g2: Array | float) -> tuple[Array, Array]:
    """Deflection of an external shear about the origin, arcsec: (g1 x + g2 y, g2 x - g1 y)."""
    g1, g2 = constants(x, g1, g2)
    return g1 * x + g2 * y, g2 * x - g1 * y


def deflect(lens: Lens, x: Array, y: Array) -> tuple[Array, Array]:
    """Deflection of `lens` at positions x, y (arcsec, any one shape) of the stamp's frame, arcsec."""
    dx, dy = x - lens.x, y - lens.y
    sie_x, sie_y = sie(dx, dy, lens.theta_e, lens.q, lens.phi, lens.core)
    shear_x, shear_y = shear(dx, dy, lens.g1, lens.g2)
    return sie_x + shear_x, sie_y + shear_y


def to_source_plane(lens: Lens, x: Array, y: Array) -> tuple[Array, Array]:
    """Source-plane position beta = theta - alpha(theta) of image-plane positions x, y, arcsec."""
    alpha_x, alpha_y = deflect(lens, x, y)
    return x - alpha_x, y - alpha_y
