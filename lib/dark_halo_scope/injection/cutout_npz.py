"""A cutout as an NPZ by the keys of the real-image plan: `cutout` and `meta_*`.

`cutout` is (H, W, 3) float32 in g, r, z, nanomaggies per pixel. What is written here loads without pickle, because text
is fixed-width unicode; files of the earlier pipeline have pickled objects there. So pixels are read from the file and
nothing else is ever opened: what is known of a cutout is in the manifest's row.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.npz import MAX_MEMBER_BYTES, NpzError

CUTOUT = "cutout"
META = "meta_"
BANDS = 3

Value = str | int | float | bool | None

_MAX_HEADER_BYTES = 4096
_EPOCH = (1980, 1, 1, 0, 0, 0)


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
    compression = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=level or None) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.compress_type = compression
            archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def decode_cutout(blob: bytes) -> NDArray[np.float32]:
    """`cutout` of NPZ bytes as (3, H, W). The sizes of member and array are compared before either is believed.

    Raises:
        NpzError: (also a ValueError) not an NPZ archive, too large, pickled pixels, or not (H, W, 3).
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            member = archive.getinfo(f"{CUTOUT}.npy")
            if member.file_size > BANDS * MAX_MEMBER_BYTES:
                raise NpzError(f"{CUTOUT} says it inflates to {member.file_size} bytes: refused.")
            content = io.BytesIO(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise NpzError(f"an NPZ archive is damaged ({error}).") from error
    try:
        if np.lib.format.read_magic(content) != (1, 0):
            raise NpzError(f"{CUTOUT} is not of array format 1.0; only that is read.")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(content, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, SyntaxError) as error:
        raise NpzError(f"{CUTOUT} has no valid array header ({error}).") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise NpzError(f"{CUTOUT} has dtype {dtype}; only floating-point pixels are read.")
    body = content.read()
    if len(shape) != 3 or shape[2] != BANDS or prod(shape) * dtype.itemsize != len(body):
        raise NpzError(f"{CUTOUT} has shape {shape} and {len(body)} bytes; (H, W, 3) in g, r, z is needed.")
    image_HW3 = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran_order else "C")
    return np.ascontiguousarray(np.moveaxis(image_HW3, 2, 0), dtype=np.float32)
