"""Arrays in a zip (NPZ) from and to bytes: equal arrays give equal bytes, and untrusted bytes cannot hurt.

`np.load` opens what is written here. Reading checks sizes in the zip directory and in the array header before anything
is inflated or allocated, and never reads a pickle. Every reader of such files is built on `open_npz` and `read_array`.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from math import prod

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


def encode_npz(arrays: Mapping[str, npt.NDArray[np.generic]], level: int = 1) -> bytes:
    """Arrays as NPZ bytes without timestamps.

    Args:
        arrays: by name, in the order written; of numbers or fixed-width text.
        level: zlib level. Noise shrinks by less than a tenth at any level, so that 1 is enough; 0 stores the arrays,
            sixteen times as fast.
    """
    compression = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=level or None) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            # In C order: equal arrays have equal bytes however they lie in memory.
            np.lib.format.write_array(content, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.compress_type = compression
            archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def decode_npz(blob: bytes, names: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """The named two-dimensional floating-point arrays of NPZ bytes, or of those inside one gzip wrapper, as float32.

    Raises:
        NpzError: (also a ValueError) not an NPZ archive, too large, an object array, an array missing, or not 2-d.
    """
    with open_npz(_unwrapped(blob)) as archive:
        count = len(archive.infolist())
        if count > MAX_MEMBERS:
            raise NpzError(f"An NPZ archive holds {count} arrays, more than {MAX_MEMBERS}: it is not a stamp.")
        return [_plane(read_array(archive, name), name) for name in names]


def npz_names(blob: bytes) -> list[str]:
    """Names of the arrays, from the zip directory alone.

    Raises:
        NpzError: not an NPZ archive.
    """
    with open_npz(_unwrapped(blob)) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def open_npz(blob: bytes) -> zipfile.ZipFile:
    """The archive of NPZ bytes; nothing is inflated yet.

    Raises:
        NpzError: they are none.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(blob))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise NpzError(f"Bytes are not a readable NPZ archive ({error}).") from error


def read_array(archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_MEMBER_BYTES) -> npt.NDArray[np.floating]:
    """A floating-point array of an archive, in its own dtype and of whatever shape; no other array is opened.

    Args:
        archive: from `open_npz`.
        name: of the array.
        max_bytes: a larger one is refused before it is inflated.

    Raises:
        NpzError: (also a ValueError) missing, too large, damaged, an object array, or of another length than its shape.
    """
    try:
        return _array(archive, name, max_bytes)
    except NpzError:
        raise
    # ValueError: a directory that points to before the file.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NpzError(f"An NPZ archive is damaged ({error}).") from error


def _array(archive: zipfile.ZipFile, name: str, max_bytes: int) -> npt.NDArray[np.floating]:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        held = ", ".join(sorted(set(archive.namelist()))) or "nothing"
        raise NpzError(f"An NPZ archive lacks {name}; it holds {held}.") from None
    if member.file_size > max_bytes:
        raise NpzError(f"{name} says it inflates to {member.file_size} bytes: refused, above {max_bytes}.")
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
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(body):
        raise NpzError(f"{name} has shape {shape} and {len(body)} bytes of {dtype}: they disagree.")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran_order else "C")


def _plane(array: npt.NDArray[np.floating], name: str) -> npt.NDArray[np.float32]:
    if array.ndim != 2 or array.size == 0:
        raise NpzError(f"{name} has shape {array.shape}; (H, W) is needed.")
    return array.astype(np.float32)


def _unwrapped(blob: bytes) -> bytes:
    return _gunzip(blob) if blob[:2] == _GZIP_MAGIC else blob


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
