"""Sersic profiles with exact b_n (Sersic 1963; Graham & Driver 2005, astro-ph/0503176, eqs 1-5)."""

import math

import array_api_compat
from scipy.special import gammaincinv

from dark_halo_scope.lensing.arrays import Array


def b_n(n: float) -> float:
    """b that puts half of the light inside the half-light radius: P(2n, b) = 1/2, exactly."""
    return float(gammaincinv(2.0 * n, 0.5))


def total_flux(r_e: float, n: float, i_e: float = 1.0) -> float:
    """Total flux 2 pi n r_e^2 i_e e^b b^(-2n) Gamma(2n) of surface brightness `i_e` at the half-light radius `r_e`.

    `r_e` is the product average of the axes of the ellipse that holds half of the light.
    """
    b = b_n(n)
    return 2.0 * math.pi * n * r_e**2 * i_e * math.exp(b - 2.0 * n * math.log(b) + math.lgamma(2.0 * n))


def central_brightness(r_e: float, n: float) -> float:
    """Surface brightness at the centre of a profile of unit total flux, 1/arcsec^2 for `r_e` in arcsec."""
    return math.exp(b_n(n)) / total_flux(r_e, n)


def brightness(radius: Array, r_e: float, n: float) -> Array:
    """Surface brightness of unit total flux at product-average elliptical `radius` (arcsec, any shape)."""
    xp = array_api_compat.array_namespace(radius)
    return central_brightness(r_e, n) * xp.exp(-b_n(n) * (radius / r_e) ** (1.0 / n))
