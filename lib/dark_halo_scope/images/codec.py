"""Stamps from blobs: what phase 4c and `inject_stamps` wrote, read so that untrusted bytes cannot hurt.

A blob is an NPZ of `image_g`, `image_r`, `image_z`, each (size, size) float32 nanomaggies per pixel, of the earlier
pipeline sometimes in a gzip wrapper. `encode_stamp` is the writer's, `injection.schema`.
"""

import numpy as np
import numpy.typing as npt

from dark_halo_scope.core.npz import NpzError, decode_npz, npz_names
from dark_halo_scope.injection.schema import BANDS, array_name, encode_stamp

__all__ = ["BANDS", "NpzError", "decode_stamp", "encode_stamp", "stamp_bands"]


def decode_stamp(blob: bytes, bands: str = BANDS, size: int | None = None) -> npt.NDArray[np.float32]:
    """Unpack a stamp into (bands, size, size) float32 nanomaggies per pixel.

    Args:
        blob: NPZ bytes, or those inside one gzip wrapper.
        bands: the planes wanted, in this order.
        size: the size expected; None accepts any square.

    Raises:
        NpzError: (also a ValueError) not a stamp, too large, an object array, a missing band, or another shape.
    """
    planes = decode_npz(blob, [array_name(band) for band in bands])
    shapes = {plane.shape for plane in planes}
    shape = planes[0].shape
    if len(shapes) != 1 or shape[0] != shape[1] or (size is not None and shape[0] != size):
        wanted = "square and equal" if size is None else f"({size}, {size})"
        raise NpzError(f"A stamp has planes of shape {sorted(shapes)}; they must be {wanted}.")
    return np.stack(planes)


def stamp_bands(blob: bytes) -> str:
    """Bands that a blob holds, in g, r, z order, from the zip directory alone.

    Raises:
        NpzError: not an NPZ archive.
    """
    names = npz_names(blob)
    return "".join(band for band in BANDS if array_name(band) in names)
