"""A cutout as an NPZ by the keys of the real-image plan: `cutout` and `meta_*`.

`cutout` is (H, W, 3) float32 in g, r, z, nanomaggies per pixel. What is written here loads without pickle, because text
is fixed-width unicode; files of the earlier pipeline have pickled objects there. So pixels are read from the file and
nothing else is ever opened: what is known of a cutout is in the manifest's row.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.npz import MAX_MEMBER_BYTES, NpzError, encode_npz, open_npz, read_array

CUTOUT = "cutout"
META = "meta_"
BANDS = 3

Value = str | int | float | bool | None


def encode_cutout(image_3HW: NDArray[np.floating], meta: Mapping[str, Value], level: int = 0) -> bytes:
    """Pack a cutout as NPZ bytes that depend on pixels and metadata alone.

    Args:
        image_3HW: nanomaggies per pixel, bands g, r, z; stored as float32.
        meta: name -> value, stored as `meta_{name}`; nothing (None) is NaN for numbers' readers, as a float.
        level: zlib level, 0 to store.

    Raises:
        NpzError: not three bands.
    """
    image_3HW = np.asarray(image_3HW, dtype="<f4")
    if image_3HW.ndim != 3 or len(image_3HW) != BANDS:
        raise NpzError(f"A cutout must have shape (3, H, W), not {image_3HW.shape}.")
    arrays: dict[str, NDArray[np.generic]] = {CUTOUT: np.ascontiguousarray(np.moveaxis(image_3HW, 0, 2))}
    arrays |= {f"{META}{name}": np.array(np.nan if value is None else value) for name, value in meta.items()}
    return encode_npz(arrays, level)


def decode_cutout(blob: bytes) -> NDArray[np.float32]:
    """`cutout` of NPZ bytes as (3, H, W); nothing else in them is opened.

    Raises:
        NpzError: (also a ValueError) not an NPZ archive, too large, pickled pixels, or not (H, W, 3).
    """
    with open_npz(blob) as archive:
        image_HW3 = read_array(archive, CUTOUT, BANDS * MAX_MEMBER_BYTES)
    if image_HW3.ndim != 3 or image_HW3.shape[2] != BANDS:
        raise NpzError(f"{CUTOUT} has shape {image_HW3.shape}; (H, W, 3) in g, r, z is needed.")
    return np.ascontiguousarray(np.moveaxis(image_HW3, 2, 0), dtype=np.float32)
