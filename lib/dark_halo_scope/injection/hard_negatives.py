"""Hard negatives: an arc's light redistributed in azimuth before the PSF.

The radial profile stays and the arc is gone, so that a network which counts light by radius learns nothing from it.
It is done on the fine image, before the PSF: pixels exchanged afterwards would carry noise at frequencies that no PSF
passes, which one number finds.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dark_halo_scope.injection.stamp_config import HardNegativeSettings
from dark_halo_scope.lensing.jit import compiled
from dark_halo_scope.lensing.render import FineImage, fine_grid

Shuffle = Callable[[FineImage, np.random.Generator, tuple[float, float], HardNegativeSettings], FineImage]


def shuffle_in_rings(fine: FineImage, rng: np.random.Generator, centre: tuple[float, float]) -> FineImage:
    """The definition: fine pixels permuted at random within each ring, one fine pixel wide, about `centre`.

    Args:
        fine: light before any PSF.
        rng: one number per pixel of every ring that holds light.
        centre: x, y of the lens in the stamp's frame, arcsec.

    Returns:
        The same flux in every ring (up to the rounding of its sum), on the same grid.
    """
    values = np.ascontiguousarray(fine.values)
    step = fine.pixel_scale / fine.oversampling
    middle = (values.shape[0] - 1) / 2.0
    shuffled = _permute_rings(values, middle + centre[0] / step, middle + centre[1] / step, rng)
    return FineImage(shuffled, fine.oversampling, fine.pixel_scale)


def shuffle_blocks(
    fine: FineImage, rng: np.random.Generator, centre: tuple[float, float], settings: HardNegativeSettings
) -> FineImage:
    """Broad bands about `centre`, each turned by an angle of its own, its azimuth cut into pieces that change places.

    Light stays clumped, so that no smooth ring remains: a variety for training, not the gate's definition. Every thin
    ring is scaled to keep its flux.
    """
    values = fine.values
    step = fine.pixel_scale / fine.oversampling
    axis = fine_grid(fine.size, fine.oversampling, fine.pixel_scale)
    dx, dy = axis[None, :] - centre[0], axis[:, None] - centre[1]
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    band = (radius / settings.block_width_arcsec).astype(np.intp)
    bands, pieces = int(band.max()) + 1, settings.block_segments
    order = np.argsort(rng.random((bands, pieces)), axis=1)
    turn, phase = rng.random((2, bands))
    part, within = np.divmod(np.mod(angle / (2 * np.pi) + phase[band], 1.0) * pieces, 1.0)
    source_angle = 2 * np.pi * ((order[band, part.astype(np.intp)] + within) / pieces + turn[band])
    middle = (values.shape[0] - 1) / 2.0
    rows = middle + (centre[1] + radius * np.sin(source_angle)) / step
    columns = middle + (centre[0] + radius * np.cos(source_angle)) / step
    moved = ndimage.map_coordinates(values, [rows, columns], order=1, mode="constant")
    ring = (radius / step).astype(np.intp)
    before, after = (np.bincount(ring.ravel(), image.ravel()) for image in (values, moved))
    scale = np.divide(before, after, out=np.zeros_like(before), where=after > 0)
    return FineImage(moved * scale[ring], fine.oversampling, fine.pixel_scale)


def _pixels(
    fine: FineImage, rng: np.random.Generator, centre: tuple[float, float], settings: HardNegativeSettings
) -> FineImage:
    return shuffle_in_rings(fine, rng, centre)


# What `HardNegativeSettings.extra` may name.
SHUFFLES: Mapping[str, Shuffle] = {"pixels": _pixels, "blocks": shuffle_blocks}


@compiled
def _permute_rings(
    values: npt.NDArray[np.float64], centre_x: float, centre_y: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Counting sort of the pixels by ring, then Fisher-Yates in every ring that holds light.

    Pixels beyond the last ring with light stay where they are and are not looked at.
    """
    rows, columns = values.shape
    out = values.copy()
    top, bottom, left, right = rows, 0, columns, 0
    for row in range(rows):
        for column in range(columns):
            if values[row, column] != 0.0:
                top, bottom = min(top, row), max(bottom, row + 1)
                left, right = min(left, column), max(right, column + 1)
    if bottom == 0:
        return out
    # The box that holds every ring of the box that holds the light.
    reach = int(np.hypot(max(centre_y - top, bottom - centre_y), max(centre_x - left, right - centre_x))) + 2
    top, bottom = max(int(centre_y) - reach, 0), min(int(centre_y) + reach + 1, rows)
    left, right = max(int(centre_x) - reach, 0), min(int(centre_x) + reach + 1, columns)
    rings = int(np.hypot(rows + abs(centre_y), columns + abs(centre_x))) + 2
    count = np.zeros(rings + 1, np.int64)
    lit = np.zeros(rings, np.bool_)
    last_lit = 0
    ring_of = np.empty((bottom - top) * (right - left), np.int32)
    place = 0
    for row in range(top, bottom):
        dy = row - centre_y
        for column in range(left, right):
            dx = column - centre_x
            ring = int(math.sqrt(dx * dx + dy * dy))
            ring_of[place] = ring
            place += 1
            count[ring + 1] += 1
            if values[row, column] != 0.0:
                lit[ring] = True
                last_lit = max(last_lit, ring)
    start = count[: last_lit + 2].copy()
    for ring in range(last_lit + 1):
        start[ring + 1] += start[ring]
    filled = start[:-1].copy()
    members = np.empty(start[-1], np.int64)
    place = 0
    for row in range(top, bottom):
        for column in range(left, right):
            ring = ring_of[place]
            place += 1
            if ring <= last_lit:
                members[filled[ring]] = row * columns + column
                filled[ring] += 1
    flat = out.ravel()
    for ring in range(last_lit + 1):
        if lit[ring]:
            first = start[ring]
            for last in range(start[ring + 1] - 1, first, -1):
                chosen = first + int(rng.random() * (last - first + 1))
                one, other = members[last], members[chosen]
                flat[one], flat[other] = flat[other], flat[one]
    return out
