"""Arrays in a zip (NPZ) from and to bytes: equal arrays give equal bytes, and untrusted bytes cannot hurt.

`np.load` opens what is written here. Reading checks sizes in the zip directory and in the array header before anything
is inflated or allocated, and never reads a pickle.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from dark_halo_scope.core.errors import BadInputError

# 1024 x 1024 float64 is far above any stamp (64 or 101 pixels): more than that is an attack or another kind of file.
MAX_MEMBER_BYTES = 8 * 1024 * 1024 + 128
MAX_MEMBERS = 16
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_HEADER_BYTES = 4096
_EPOCH = (1980, 1, 1, 0, 0, 0)


class NpzError(BadInputError, ValueError):
    """Bytes that are not the arrays they should be: wrong container, shape, dtype or size. The message says which."""


def encode_npz(arrays: Mapping[str, npt.NDArray[np.float32]], level: int = 1) -> bytes:
    """Float32 arrays as NPZ bytes without timestamps.

    Args:
        arrays: by name, in the order written.
        level: zlib level. Noise shrinks by less than a tenth at any level, so that 1 is enough; 0 stores the arrays,
            sixteen times as fast.
    """
    compression = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=level or None) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.compress_type = compression
            archive.writestr(member, _header(array.shape) + np.ascontiguousarray(array, dtype="<f4").tobytes())
    return buffer.getvalue()


def decode_npz(blob: bytes, names: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """The named two-dimensional floating-point arrays of NPZ bytes, or of those inside one gzip wrapper, as float32.

    Raises:
        NpzError: (also a ValueError) not an NPZ archive, too large, an object array, an array missing, or not 2-d.
    """
    with _archive(blob) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise NpzError(f"An NPZ archive holds {len(members)} arrays, more than {MAX_MEMBERS}: it is not a stamp.")
        by_name = {member.filename: member for member in members}
        try:
            return [_array(archive, by_name, name) for name in names]
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise NpzError(f"An NPZ archive is damaged ({error}).") from error


def npz_names(blob: bytes) -> list[str]:
    """Names of the arrays, from the zip directory alone.

    Raises:
        NpzError: not an NPZ archive.
    """
    with _archive(blob) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _archive(blob: bytes) -> zipfile.ZipFile:
    if blob[:2] == _GZIP_MAGIC:
        blob = _gunzip(blob)
    try:
        return zipfile.ZipFile(io.BytesIO(blob))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise NpzError(f"Bytes are not a readable NPZ archive ({error}).") from error


def _header(shape: Sequence[int]) -> bytes:
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
        raise NpzError(f"A gzip wrapper does not inflate ({error}).") from error
    if inflater.unconsumed_tail:
        raise NpzError(f"A gzip wrapper inflates to more than {limit} bytes: it is not a stamp.")
    if not inflater.eof:
        raise NpzError("A gzip wrapper is truncated.")
    return inner


def _array(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> npt.NDArray[np.float32]:
    member = members.get(f"{name}.npy")
    if member is None:
        raise NpzError(f"An NPZ archive lacks {name}; it holds {', '.join(sorted(members)) or 'nothing'}.")
    if member.file_size > MAX_MEMBER_BYTES:
        raise NpzError(f"{name} says it inflates to {member.file_size} bytes, above {MAX_MEMBER_BYTES}: refused.")
    # zipfile stops at the size in the directory, which was just checked, and verifies the CRC.
    content = io.BytesIO(archive.read(member))
    try:
        version = np.lib.format.read_magic(content)
        if version != (1, 0):
            raise NpzError(f"{name} has array format {version}; only (1, 0) is read.")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(content, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, SyntaxError) as error:
        raise NpzError(f"{name} has no valid array header ({error}).") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise NpzError(f"{name} has dtype {dtype}; only floating-point pixels are read.")
    body = content.read()
    if len(shape) != 2 or min(shape) < 1 or prod(shape) * dtype.itemsize != len(body):
        raise NpzError(f"{name} has shape {shape} and {len(body)} bytes of {dtype}: they disagree.")
    order: Literal["C", "F"] = "F" if fortran_order else "C"
    return np.frombuffer(body, dtype).reshape((shape[0], shape[1]), order=order).astype(np.float32)
