"""Safetensors files, and nothing else: a format that can run code when read is refused."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from dark_halo_scope.core.errors import BadInputError

# First bytes of what torch.save and pickle write: a ZIP archive, or a pickle of protocol 2 to 5.
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def pack_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Bytes of a safetensors file; equal tensors give equal bytes."""
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    return save(plain, dict(metadata) if metadata else None)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file, on the CPU.

    Raises:
        BadInputError: no such file, a pickle, or a file that is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read ({error.strerror}); give the path of a safetensors file."
        ) from error
    return unpack_tensors(data, str(path))


def unpack_tensors(data: bytes, where: str) -> dict[str, torch.Tensor]:
    """Tensors of the bytes of a safetensors file called `where`.

    Raises:
        BadInputError: a pickle, or damaged bytes.
    """
    if data.startswith(_PICKLE_MAGIC):
        raise BadInputError(
            f"{where} is a pickle, which can run code when it is read, and is refused; convert it to safetensors on a "
            "machine where you trust it."
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise BadInputError(f"{where} is not a whole safetensors file ({error}); fetch or write it again.") from error
