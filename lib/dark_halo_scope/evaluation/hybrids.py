"""Gate inputs: images that are part positive and part the same host's control.

Every pixel comes from an image that the network has seen the like of, so a gate measures what the network looks at and
not how it reacts to holes.

Shape legend: N pairs, C bands, H rows, W columns. Images are nanomaggies per pixel, float32; radii are arcsec.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]

#: Keeps a node that no pixel touches, or hardly one, from making the ring fit singular; others have weights near 1.
_RIDGE = 1e-10


@dataclass(frozen=True)
class Geometry:
    """Where core and arc annulus of each pair lie.

    radius: distance of each pixel's centre from the lens, (N, H, W), arcsec.
    theta_e: Einstein radius, (N,), arcsec.
    width: half width F of the arc annulus, (N,), arcsec.
    core_radius: r_core = max(2 pixels, theta_E - F), (N,), arcsec.
    pixel_scale: arcsec per pixel.
    """

    radius: NDArray[np.float64]
    theta_e: NDArray[np.float64]
    width: NDArray[np.float64]
    core_radius: NDArray[np.float64]
    pixel_scale: float

    @property
    def core(self) -> NDArray[np.bool_]:
        """Pixels with r < r_core."""
        return self.radius < self.core_radius[:, None, None]

    @property
    def annulus(self) -> NDArray[np.bool_]:
        """Pixels with |r - theta_E| < F."""
        return np.abs(self.radius - self.theta_e[:, None, None]) < self.width[:, None, None]


def geometry(
    theta_e_N: NDArray[np.float64],
    psfsize_N: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    centre_N2: NDArray[np.float64] | None = None,
    annulus_factor: float = 1.0,
    core_pixels: float = 2.0,
    pixel_scale: float = 0.262,
) -> Geometry:
    """Core and annulus of each pair.

    Args:
        theta_e_N: Einstein radii, arcsec.
        psfsize_N: psfsize_r, arcsec.
        shape: rows and columns of the stamps.
        centre_N2: lens position (x, y) from the stamp's centre ((W-1)/2, (H-1)/2), arcsec; None: at the centre.
        annulus_factor: F in units of psfsize_r; the seeds used 1.5.
        core_pixels: smallest core radius, pixels.
        pixel_scale: arcsec per pixel.
    """
    theta = np.asarray(theta_e_N, dtype=float)
    width = annulus_factor * np.asarray(psfsize_N, dtype=float)
    offset = np.zeros((len(theta), 2)) if centre_N2 is None else np.asarray(centre_N2, dtype=float)
    rows, columns = shape
    x = (np.arange(columns) - (columns - 1) / 2) * pixel_scale
    y = (np.arange(rows) - (rows - 1) / 2) * pixel_scale
    radius = np.hypot(x[None, None, :] - offset[:, 0, None, None], y[None, :, None] - offset[:, 1, None, None])
    return Geometry(radius, theta, width, np.maximum(core_pixels * pixel_scale, theta - width), pixel_scale)


def core_from_positive(positive_NCHW: Images, control_NCHW: Images, where: Geometry) -> Images:
    """G1's input: the control with the positive's pixels inside r_core."""
    return np.where(where.core[:, None], positive_NCHW, control_NCHW)


def ring_averaged_arc(positive_NCHW: Images, control_NCHW: Images, where: Geometry) -> Images:
    """G2's input: the control plus the arc averaged in azimuth, so that only the radial profile tells it apart."""
    arc = positive_NCHW.astype(np.float64) - control_NCHW
    return (control_NCHW + ring_average(arc, where.radius / where.pixel_scale)).astype(np.float32)


def annulus_from_positive(positive_NCHW: Images, control_NCHW: Images, where: Geometry) -> Images:
    """G3's input: the control with the positive's pixels in the arc annulus."""
    return np.where(where.annulus[:, None], positive_NCHW, control_NCHW)


def annulus_from_control(positive_NCHW: Images, control_NCHW: Images, where: Geometry) -> Images:
    """G5's input: the positive with the annulus replaced by the control's pixels."""
    return np.where(where.annulus[:, None], control_NCHW, positive_NCHW)


def ring_average(image_NCHW: NDArray[np.float64], radius_NHW: NDArray[np.float64]) -> NDArray[np.float64]:
    """The azimuthally symmetric image with the same radial profile.

    The profile is linear between nodes one pixel apart, fitted by least squares. Its normal equations keep the sum over
    every ring (weighted by the nodes' hat functions), hence flux and profile; an image that is symmetric already stays
    as it is, as far as linear interpolation goes. Averages over rings of whole pixels would leave steps between rings,
    which mark an image as artificial.

    Args:
        image_NCHW: images.
        radius_NHW: distance of each pixel from the centre, pixels.

    Returns:
        Images of the same shape.
    """
    n, bands, rows, columns = image_NCHW.shape
    nodes = int(radius_NHW.max()) + 2
    radius = radius_NHW.reshape(n, -1)
    inner = radius.astype(np.intp)
    outer_weight = radius - inner
    inner_weight = 1 - outer_weight
    node = inner + nodes * np.arange(n)[:, None]

    def ring_sum(values: NDArray[np.float64], shift: int) -> NDArray[np.float64]:
        sums = np.bincount((node + shift).ravel(), values.ravel(), minlength=n * nodes)
        return sums.astype(np.float64).reshape(n, nodes)

    diagonal = ring_sum(inner_weight**2, 0) + ring_sum(outer_weight**2, 1)
    above = ring_sum(inner_weight * outer_weight, 0)[:, :-1]
    matrix = np.zeros((n, nodes, nodes))
    index = np.arange(nodes)
    matrix[:, index, index] = diagonal + _RIDGE
    matrix[:, index[:-1], index[1:]] = matrix[:, index[1:], index[:-1]] = above

    flat = image_NCHW.reshape(n, bands, -1)
    sums = np.stack(
        [
            ring_sum(flat[:, band] * inner_weight, 0) + ring_sum(flat[:, band] * outer_weight, 1)
            for band in range(bands)
        ],
        axis=2,
    )
    profile = np.linalg.solve(matrix, sums).transpose(0, 2, 1).copy()
    low = np.take_along_axis(profile, np.broadcast_to(inner[:, None], flat.shape), axis=2)
    high = np.take_along_axis(profile, np.broadcast_to(inner[:, None] + 1, flat.shape), axis=2)
    return (low * inner_weight[:, None] + high * outer_weight[:, None]).reshape(n, bands, rows, columns)
