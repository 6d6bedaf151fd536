"""Stamps as NPZ blobs: what phase 4c wrote, and the one reader for it that untrusted bytes cannot hurt.

A blob is a zip of `image_g.npy`, `image_r.npy`, `image_z.npy`, each (size, size) float32 nanomaggies per pixel.
Existing blobs come from `np.savez_compressed`, some wrapped in gzip once more; those written here open with `np.load`.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from dark_halo_scope.core.errors import BadInputError

BANDS = "grz"
# 1024 x 1024 float64 is far above any stamp (64 or 101 pixels): more than that is an attack or another kind of file.
MAX_MEMBER_BYTES = 8 * 1024 * 1024 + 128
MAX_MEMBERS = 16
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_HEADER_BYTES = 4096
_EPOCH = (1980, 1, 1, 0, 0, 0)


class StampError(BadInputError, ValueError):
    """A blob that is not a stamp: wrong container, shape, dtype or size. The message says which."""


def encode_stamp(image: npt.NDArray[np.floating], bands: str = BANDS, level: int = 1) -> bytes:
    """Pack a stamp as NPZ bytes that depend on its pixels alone (no timestamps), so that equal stamps have equal bytes.

    Args:
        image: (bands, size, size) nanomaggies per pixel; stored as float32.
        bands: one letter per plane.
        level: zlib level. Noise shrinks by less than a tenth at any level, so that 1 is enough; 0 stores the pixels,
            sixteen times as fast.

    Raises:
        StampError: the planes do not match `bands`.
    """
    image = np.asarray(image)
    if image.ndim != 3 or len(image) != len(bands):
        raise StampError(f"A stamp of bands {bands} must have shape ({len(bands)}, size, size), not {image.shape}.")
    header = _npy_header(image.shape[1:])
    compression = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=level or None) as archive:
        for band, plane in zip(bands, image, strict=True):
            member = zipfile.ZipInfo(f"image_{band}.npy", _EPOCH)
            member.compress_type = compression
            archive.writestr(member, header + np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return buffer.getvalue()


def decode_stamp(blob: bytes, bands: str = BANDS, size: int | None = None) -> npt.NDArray[np.float32]:
    """Unpack a stamp into (bands, size, size) float32 nanomaggies per pixel.

    Sizes are checked in the zip directory and in the array header before anything is inflated or allocated, and no
    pickle is ever read.

    Args:
        blob: NPZ bytes, or those inside one gzip wrapper.
        bands: the planes wanted, in this order.
        size: the size expected; None accepts any square.

    Raises:
        StampError: (also a ValueError) not a stamp, too large, an object array, a missing band, or another shape.
    """
    if blob[:2] == _GZIP_MAGIC:
        blob = _gunzip(blob)
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise StampError(f"A stamp holds {len(members)} arrays, more than {MAX_MEMBERS}: it is not a stamp.")
            by_name = {member.filename: member for member in members}
            planes = [_plane(archive, by_name, band) for band in bands]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StampError(f"A stamp is not a readable NPZ archive ({error}).") from error
    shapes = {plane.shape for plane in planes}
    shape = planes[0].shape
    if len(shapes) != 1 or shape[0] != shape[1] or (size is not None and shape[0] != size):
        wanted = "square and equal" if size is None else f"({size}, {size})"
        raise StampError(f"A stamp has planes of shape {sorted(shapes)}; they must be {wanted}.")
    return np.stack(planes)


def stamp_bands(blob: bytes) -> str:
    """Bands that a blob holds, in g, r, z order, from the zip directory alone.

    Raises:
        StampError: not an NPZ archive.
    """
    if blob[:2] == _GZIP_MAGIC:
        blob = _gunzip(blob)
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise StampError(f"A stamp is not a readable NPZ archive ({error}).") from error
    return "".join(band for band in BANDS if f"image_{band}.npy" in names)


def _npy_header(shape: Sequence[int]) -> bytes:
    buffer = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": tuple(int(length) for length in shape)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _gunzip(blob: bytes) -> bytes:
    """Inflate one gzip member, stopping at the size that MAX_MEMBERS full arrays would have."""
    limit = MAX_MEMBERS * MAX_MEMBER_BYTES
    inflater = zlib.decompressobj(wbits=31)
    try:
        inner = inflater.decompress(blob, limit)
    except zlib.error as error:
        raise StampError(f"A stamp in a gzip wrapper does not inflate ({error}).") from error
    if inflater.unconsumed_tail:
        raise StampError(f"A stamp in a gzip wrapper inflates to more than {limit} bytes: it is not a stamp.")
    if not inflater.eof:
        raise StampError("A stamp in a gzip wrapper is truncated.")
    return inner


def _plane(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], band: str) -> npt.NDArray[np.float32]:
    member = members.get(f"image_{band}.npy")
    if member is None:
        raise StampError(f"A stamp lacks image_{band}; it holds {', '.join(sorted(members)) or 'nothing'}.")
    if member.file_size > MAX_MEMBER_BYTES:
        raise StampError(
            f"image_{band} of a stamp says it inflates to {member.file_size} bytes, above {MAX_MEMBER_BYTES}: refused."
        )
    # zipfile stops at the size in the directory, which was just checked, and verifies the CRC.
    content = io.BytesIO(archive.read(member))
    try:
        version = np.lib.format.read_magic(content)
        if version != (1, 0):
            raise StampError(f"image_{band} of a stamp has array format {version}; only (1, 0) is read.")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(content, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, SyntaxError) as error:
        raise StampError(f"image_{band} of a stamp has no valid array header ({error}).") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise StampError(f"image_{band} of a stamp has dtype {dtype}; only floating-point pixels are read.")
    body = content.read()
    if len(shape) != 2 or min(shape) < 1 or prod(shape) * dtype.itemsize != len(body):
        raise StampError(f"image_{band} of a stamp has shape {shape} and {len(body)} bytes of {dtype}: they disagree.")
    order: Literal["C", "F"] = "F" if fortran_order else "C"
    return np.frombuffer(body, dtype).reshape((shape[0], shape[1]), order=order).astype(np.float32)
