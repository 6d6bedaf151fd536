"""Checkpoints to resume from: complete, checked by their checksum, safetensors and JSON only.

A checkpoint is a directory `step-00001234` with `state.safetensors` and, written last, `state.json`, which holds the
checksum of the former. One without a matching `state.json` was interrupted or damaged: it is passed over, with
a warning.
"""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.files import (
    fsync_directory,
    make_directory,
    read_json,
    remove_tree,
    sha256_bytes,
    write_bytes,
    write_json,
)
from dark_halo_scope.models.weights_file import pack_tensors, unpack_tensors

_logger = logging.getLogger(__name__)

TENSORS = "state.safetensors"
MARKER = "state.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on: named tensors, and JSON-ready values."""

    tensors: Mapping[str, torch.Tensor]
    values: Mapping[str, Any]


def checkpoint_folders(folder: Path) -> list[Path]:
    """Checkpoints under `folder`, whole or not, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write the checkpoint of `step`, then remove all but the newest `keep`.

    Raises:
        StorageError: the disk is full or gone; older checkpoints are as before.
    """
    target = folder / f"step-{step:08d}"
    remove_tree(target)  # left by an interrupted attempt: a whole one of this step would have been resumed from
    make_directory(target)
    data = pack_tensors(checkpoint.tensors)
    try:
        write_bytes(target / TENSORS, data)
        write_json(
            target / MARKER,
            {"values": checkpoint.values, "step": step, "bytes": len(data), "sha256": sha256_bytes(data)},
        )
    except DarkHaloScopeError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    fsync_directory(folder)
    # Newer ones are broken, or this run would have gone on from them.
    newer = [path for path in checkpoint_folders(folder) if path.name > target.name]
    for path in newer:
        remove_tree(path)
    for path in checkpoint_folders(folder)[keep:]:
        remove_tree(path)
    return target


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in the directory `path`.

    Raises:
        DarkHaloScopeError: it is unmarked, truncated, damaged or no safetensors file.
    """
    marker = read_json(path / MARKER)
    try:
        data = (path / TENSORS).read_bytes()
    except OSError as error:
        raise DarkHaloScopeError(f"{path / TENSORS} cannot be read ({error.strerror}).") from error
    if not isinstance(marker, dict) or len(data) != marker.get("bytes") or sha256_bytes(data) != marker.get("sha256"):
        raise DarkHaloScopeError(f"{path / TENSORS} is not what {MARKER} beside it was written for.")
    return Checkpoint(unpack_tensors(data, str(path / TENSORS)), marker["values"])


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `folder`; those that are not whole are warned about and passed over."""
    for path in checkpoint_folders(folder):
        try:
            return load_checkpoint(path)
        except DarkHaloScopeError as error:
            _logger.warning("Passing over the checkpoint %s: %s", path, error)
    return None
