"""What is lensed: analytic profiles and images of real galaxies, all of unit unlensed flux."""

import math
from dataclasses import dataclass

import array_api_compat
import numpy as np
import numpy.typing as npt

from dark_halo_scope.lensing import sersic
from dark_halo_scope.lensing.arrays import Array, constants


@dataclass(frozen=True)
class SersicSource:
    """Elliptical Sersic profile of unit total flux.

    Attributes:
        x, y: unlensed position in the stamp's frame, arcsec.
        r_e: half-light radius, arcsec: product average of the ellipse's axes.
        n: Sersic index, 0.3 to 10.
        q: axis ratio, 0 < q <= 1.
        phi: angle of the major axis, rad, counter-clockwise from +x.

    Raises:
        ValueError: a parameter is not finite or out of its range.
    """

    x: float
    y: float
    r_e: float
    n: float = 1.0
    q: float = 1.0
    phi: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.x, self.y, self.r_e, self.n, self.q, self.phi)):
            raise ValueError(f"A source has a parameter that is not finite: {self}.")
        if self.r_e <= 0 or not 0.3 <= self.n <= 10 or not 0 < self.q <= 1:
            raise ValueError(f"A Sersic source needs r_e > 0, 0.3 <= n <= 10 and 0 < q <= 1: {self}.")

    def matrix(self) -> npt.NDArray[np.float64]:
        """(2, 2) map from offsets in arcsec to offsets in half-light radii, ellipse made round."""
        cos, sin = math.cos(self.phi), math.sin(self.phi)
        axis = math.sqrt(self.q)
        return np.array([[cos * axis, sin * axis], [-sin / axis, cos / axis]]) / self.r_e


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A galaxy's image as a source, interpolated bilinearly: that conserves the flux exactly.

    Beyond the image's edge pixels brightness falls to zero over one pixel.

    Attributes:
        x, y: unlensed position of the image's centre, index ((nx - 1)/2, (ny - 1)/2), in the stamp's frame, arcsec.
        image: (ny, nx) flux per pixel, any unit: it is divided by its sum.
        pixel_scale: arcsec.
        phi: angle by which the image is turned counter-clockwise, rad.
        scale: factor by which the galaxy is made larger at constant flux.

    Raises:
        ValueError: no 2-d finite image with a positive sum, or another parameter out of its range.
    """

    x: float
    y: float
    image: npt.NDArray[np.floating]
    pixel_scale: float
    phi: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.x, self.y, self.pixel_scale, self.phi, self.scale)):
            raise ValueError("A source image has a position, angle or scale that is not finite.")
        if self.pixel_scale <= 0 or self.scale <= 0:
            raise ValueError("A source image's pixel_scale and scale are positive.")
        # A sum is finite only where every pixel is, short of overflow.
        if self.image.ndim != 2 or not (math.isfinite(total := float(self.image.sum(dtype=np.float64))) and total > 0):
            raise ValueError("A source image is two-dimensional, finite, and sums to more than zero.")

    @property
    def arcsec_per_pixel(self) -> float:
        """Pixel size after `scale`, arcsec."""
        return self.pixel_scale * self.scale

    def matrix(self) -> npt.NDArray[np.float64]:
        """(2, 2) map from offsets in arcsec to offsets in image pixels."""
        cos, sin = math.cos(self.phi), math.sin(self.phi)
        return np.array([[cos, sin], [-sin, cos]]) / self.arcsec_per_pixel

    def brightness_image(self) -> npt.NDArray[np.float64]:
        """(ny + 2, nx + 2) surface brightness, 1/arcsec^2, of unit flux, with a border of zeros."""
        image = np.asarray(self.image, dtype=np.float64)
        return np.pad(image / (image.sum() * self.arcsec_per_pixel**2), 1)


Source = SersicSource | ImageSource


def brightness(source: Source, x: Array, y: Array) -> Array:
    """Surface brightness, 1/arcsec^2, of `source` at source-plane positions x, y (arcsec, any one shape)."""
    xp = array_api_compat.array_namespace(x, y)
    ((a, b), (c, d)) = source.matrix().tolist()
    dx, dy = x - source.x, y - source.y
    u, v = a * dx + b * dy, c * dx + d * dy
    if isinstance(source, SersicSource):
        return sersic.brightness(xp.sqrt(u * u + v * v), 1.0, source.n) / source.r_e**2
    padded = source.brightness_image()
    (image,) = constants(x, padded)
    height, width = padded.shape
    # Outside the border of zeros a position is moved onto it.
    u = xp.clip(u + (width - 1) / 2, 0.0, width - 1.0)
    v = xp.clip(v + (height - 1) / 2, 0.0, height - 1.0)
    column, row = (
        xp.clip(xp.astype(xp.floor(index), xp.int64), 0, last - 2) for index, last in ((u, width), (v, height))
    )
    right, up = u - xp.astype(column, u.dtype), v - xp.astype(row, v.dtype)
    flat = xp.reshape(image, (-1,))

    def pixel(index: Array) -> Array:
        return xp.reshape(xp.take(flat, xp.reshape(index, (-1,)), axis=0), index.shape)

    first = row * width + column
    lower = pixel(first) * (1 - right) + pixel(first + 1) * right
    upper = pixel(first + width) * (1 - right) + pixel(first + width + 1) * right
    return lower * (1 - up) + upper * up
