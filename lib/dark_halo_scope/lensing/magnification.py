"""Jacobians, magnifications, point images and caustics. Arcsec and radians; arrays of NumPy or torch."""

import math
from typing import NamedTuple

import array_api_compat
import numpy as np

from dark_halo_scope.lensing.arrays import Array, constants
from dark_halo_scope.lensing.deflection import to_source_plane
from dark_halo_scope.lensing.lens import Lens


class Distortion(NamedTuple):
    """Convergence and total shear (external one included) at each position."""

    kappa: Array
    gamma1: Array
    gamma2: Array


def distortion(lens: Lens, x: Array, y: Array) -> Distortion:
    """Convergence and shear of `lens` at x, y (Keeton 2001 eqs 36-38 with b = theta_e sqrt(q)).

    Not defined at the centre of a singular lens, where the convergence is infinite.
    """
    xp = array_api_compat.array_namespace(x, y)
    theta_e, q, phi, core = constants(x, lens.theta_e, lens.q, lens.phi, lens.core)
    cos, sin = xp.cos(phi), xp.sin(phi)
    dx, dy = x - lens.x, y - lens.y
    major, minor = cos * dx + sin * dy, cos * dy - sin * dx
    psi = xp.sqrt(q * q * (core * core + major * major) + minor * minor)
    factor = theta_e * xp.sqrt(q) / psi
    factor = factor / ((1 + q * q) * core * core + 2 * psi * core + major * major + minor * minor)
    f_xx = factor * (q * q * core * core + minor * minor + core * psi)
    f_yy = factor * (core * core + major * major + core * psi)
    f_xy = -factor * major * minor
    along, across = (f_xx - f_yy) / 2, f_xy
    cos2, sin2 = xp.cos(2 * phi), xp.sin(2 * phi)
    return Distortion(
        (f_xx + f_yy) / 2,
        cos2 * along - sin2 * across + lens.g1,
        sin2 * along + cos2 * across + lens.g2,
    )


def jacobian(lens: Lens, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """A = d beta / d theta at x, y: its elements (A_xx, A_xy, A_yy); it is symmetric."""
    kappa, gamma1, gamma2 = distortion(lens, x, y)
    return 1 - kappa - gamma1, -gamma2, 1 - kappa + gamma1


def magnification(lens: Lens, x: Array, y: Array) -> Array:
    """Signed magnification 1 / det A of a point image at x, y; negative for saddles, infinite on critical curves."""
    a_xx, a_xy, a_yy = jacobian(lens, x, y)
    return 1 / (a_xx * a_yy - a_xy * a_xy)


def stretches(lens: Lens, x: Array, y: Array) -> tuple[Array, Array]:
    """Tangential and radial stretch, 1 / |1 - kappa - gamma| and 1 / |1 - kappa + gamma|, at x, y."""
    xp = array_api_compat.array_namespace(x, y)
    kappa, gamma1, gamma2 = distortion(lens, x, y)
    gamma = xp.sqrt(gamma1 * gamma1 + gamma2 * gamma2)
    return 1 / xp.abs(1 - kappa - gamma), 1 / xp.abs(1 - kappa + gamma)


class PointImages(NamedTuple):
    """Images of a point source behind a singular isothermal sphere; along the axis from the lens to the source.

    `theta_minus` is negative (the other side of the lens) and, with no second image, NaN with magnification 0.
    """

    theta_plus: Array
    theta_minus: Array
    mu_plus: Array
    mu_minus: Array


def sis_point_images(beta: Array, theta_e: float) -> PointImages:
    """Images of point sources at distances beta > 0 (arcsec) from an SIS; magnifications are absolute.

    Narayan & Bartelmann (1996), astro-ph/9606001, section 3.1: theta = beta +- theta_e, |mu| = theta_e / beta +- 1.
    """
    xp = array_api_compat.array_namespace(beta)
    inside = beta < theta_e
    nothing = xp.zeros_like(beta)
    return PointImages(
        beta + theta_e,
        xp.where(inside, beta - theta_e, nothing + xp.nan),
        theta_e / beta + 1,
        xp.where(inside, theta_e / beta - 1, nothing),
    )


def sis_disc_magnification(theta_e: float, radius: float) -> float:
    """Magnification of a uniform disc of `radius` centred behind an SIS: 4 theta_e / R, beyond R = theta_e
    (1 + theta_e / R)^2.
    """
    ratio = theta_e / radius
    return 4 * ratio if ratio >= 1 else (1 + ratio) ** 2


def critical_curve(lens: Lens, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tangential critical curve of a singular lens, at polar `angles` (rad) about its centre: x, y in arcsec.

    An SIE's potential is homogeneous of degree one, so A = M - (c / r) t t^T with M = 1 - Gamma, t the tangential unit
    vector and c(angle) = 2 kappa r; det A = 0 gives r = c t^T adj(M) t / det M.

    Raises:
        ValueError: the lens has a core.
    """
    if lens.core > 0:
        raise ValueError("The closed form of the critical curve holds for singular lenses; this one has a core.")
    along = angles - lens.phi
    strength = lens.theta_e / np.sqrt(lens.q * np.cos(along) ** 2 + np.sin(along) ** 2 / lens.q)
    t_x, t_y = -np.sin(angles), np.cos(angles)
    # adj(1 - Gamma) = 1 + Gamma.
    adjugate = 1 + lens.g1 * (t_x**2 - t_y**2) + 2 * lens.g2 * t_x * t_y
    radius = strength * adjugate / (1 - lens.g1**2 - lens.g2**2)
    return lens.x + radius * np.cos(angles), lens.y + radius * np.sin(angles)


def caustic_radius(lens: Lens) -> float:
    """Greatest distance from the lens centre, arcsec, at which a point source has more than one image.

    It is the outermost point of the cut (the image of the lens centre, where the fifth image would vanish) and the
    tangential caustic, on 720 directions: 1e-5 relative.
    """
    angles = np.linspace(0.0, 2.0 * math.pi, 720, endpoint=False)
    curves = [critical_curve(lens, angles)]
    # The cut: deflections do not depend on the distance from a singular centre, so a small circle maps onto it.
    small = 1e-9 * max(lens.theta_e, 1e-3)
    curves.append((lens.x + small * np.cos(angles), lens.y + small * np.sin(angles)))
    radii = []
    for x, y in curves:
        beta_x, beta_y = to_source_plane(lens, x, y)
        radii.append(np.hypot(beta_x - lens.x, beta_y - lens.y).max())
    return float(max(radii))
