"""What is measured of a cutout before a network sees it: missing pixels, where they lie, statistics of each band."""

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.schema import BANDS

STATISTICS = ("mean", "std", "p01", "p50", "p99")
_PERCENTILES = (1, 50, 99)

QUALITY_FIELDS: tuple[pa.Field, ...] = (
    *(pa.field(name, pa.int32()) for name in ("quality_ok", "has_nan", "nan_pixel_count")),
    *(pa.field(name, pa.float64()) for name in ("nan_fraction_centre", "nan_fraction_core")),
    *(pa.field(f"{name}_{band}", pa.float64()) for name in STATISTICS for band in BANDS),
)
"""Columns of a stamp's quality, null where there were no pixels to measure.

quality_ok, has_nan: 0 or 1. nan_pixel_count: pixels that are not finite, over all bands. nan_fraction_*: share of
missing pixels (not finite, or exactly 0) in the central square and the core, of the worst band. Statistics are of the
pixels that are there, nanomaggies per pixel.
"""


@lru_cache(maxsize=8)
def _masks(size: int, centre_pixels: int, core_radius: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(size, size) central square and core."""
    axis = np.abs(np.arange(size) - (size - 1) / 2)
    square = np.maximum(axis[:, None], axis[None]) <= centre_pixels / 2
    return square, np.hypot(axis[:, None], axis[None]) < core_radius


def measure(image_3HW: NDArray[np.floating], settings: CutoutQualitySettings) -> dict[str, float | int]:
    """Columns `QUALITY_FIELDS` of a square cutout as it came: bands g, r, z, nanomaggies per pixel."""
    values = measure_missing(image_3HW, settings)
    for band, plane, there in zip(BANDS, image_3HW.astype(np.float64), ~_missing(image_3HW), strict=True):
        if there.any():
            pixels = plane[there]
            found = (pixels.mean(), pixels.std(), *np.percentile(pixels, _PERCENTILES))
            values |= {f"{name}_{band}": float(value) for name, value in zip(STATISTICS, found, strict=True)}
    return values


def measure_missing(image_3HW: NDArray[np.floating], settings: CutoutQualitySettings) -> dict[str, float | int]:
    """The columns of `measure` that say whether a cutout is usable: all but the statistics."""
    missing = _missing(image_3HW)
    square, core = _masks(image_3HW.shape[-1], settings.centre_pixels, settings.core_radius_pixels)
    in_square, in_core = (float(missing[:, mask].mean(axis=1).max()) for mask in (square, core))
    count = int((~np.isfinite(image_3HW)).sum())
    usable = in_square < settings.max_missing_centre or in_square == 0
    usable &= in_core < settings.max_missing_core or in_core == 0
    return {
        "quality_ok": int(usable and not missing.all(axis=(1, 2)).any()),
        "has_nan": int(count > 0),
        "nan_pixel_count": count,
        "nan_fraction_centre": in_square,
        "nan_fraction_core": in_core,
    }


def _missing(image_3HW: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.asarray(~np.isfinite(image_3HW) | (image_3HW == 0))


def why_unusable(values: dict[str, float | int], settings: CutoutQualitySettings) -> str | None:
    """A sentence's worth of reason for `quality_ok` 0, None where the cutout is usable."""
    if values["quality_ok"]:
        return None
    if values["nan_fraction_core"] >= settings.max_missing_core and values["nan_fraction_core"] > 0:
        return "pixels missing in the core"
    if values["nan_fraction_centre"] >= settings.max_missing_centre and values["nan_fraction_centre"] > 0:
        return "too many pixels missing in the centre"
    return "a band is missing"
