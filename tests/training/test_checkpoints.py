"""Checkpoints: the newest whole one is used, and nothing in one can run code."""

import json
import logging
import pickle
from pathlib import Path

import pytest
import torch

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.training.checkpoints import (
    MARKER,
    TENSORS,
    Checkpoint,
    checkpoint_folders,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model.weight": torch.randn(3, 4, generator=generator),
        "model.batches": torch.tensor(step),
        "optimizer.0.exp_avg": torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last),
    }
    return Checkpoint(tensors, {"step": step, "loss_sum": 0.1 + 0.2, "history": [{"val_auc": 1 / 3}]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, checkpoint(step), keep=2)
    return tmp_path


def test_a_checkpoint_comes_back_bit_by_bit(folder: Path) -> None:
    loaded = newest_checkpoint(folder)
    assert loaded is not None
    assert loaded.values == checkpoint(30).values
    for name, tensor in checkpoint(30).tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype


def test_the_two_newest_are_kept(folder: Path) -> None:
    assert [path.name for path in checkpoint_folders(folder)] == ["step-00000030", "step-00000020"]


def test_no_checkpoints_is_a_fresh_start(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "none") is None


def damage_truncated(path: Path) -> None:
    (path / TENSORS).write_bytes((path / TENSORS).read_bytes()[:-7])


def damage_flipped(path: Path) -> None:
    data = bytearray((path / TENSORS).read_bytes())
    data[-3] ^= 1
    (path / TENSORS).write_bytes(data)


def damage_unmarked(path: Path) -> None:
    (path / MARKER).unlink()


def damage_half_marker(path: Path) -> None:
    (path / MARKER).write_text((path / MARKER).read_text()[:30])


def damage_without_tensors(path: Path) -> None:
    (path / TENSORS).unlink()


DAMAGES = [damage_truncated, damage_flipped, damage_unmarked, damage_half_marker, damage_without_tensors]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_newest_one_is_warned_about_and_the_one_before_is_used(
    folder: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    damage(folder / "step-00000030")
    with caplog.at_level(logging.WARNING):
        loaded = newest_checkpoint(folder)
    assert loaded is not None
    assert loaded.values["step"] == 20
    assert "step-00000030" in caplog.text


def test_a_broken_newer_one_goes_when_the_run_saves_again(folder: Path) -> None:
    damage_truncated(folder / "step-00000030")
    save_checkpoint(folder, 25, checkpoint(25), keep=2)
    assert [path.name for path in checkpoint_folders(folder)] == ["step-00000025", "step-00000020"]


def test_a_pickle_with_a_correct_checksum_is_refused_and_does_nothing(folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(tmp_path / "witness"), "w"))

    from dark_halo_scope.core.files import sha256_bytes

    path = folder / "step-00000030"
    data = pickle.dumps(Payload())
    (path / TENSORS).write_bytes(data)
    marker = json.loads((path / MARKER).read_text()) | {"bytes": len(data), "sha256": sha256_bytes(data)}
    (path / MARKER).write_text(json.dumps(marker))
    with pytest.raises(DarkHaloScopeError, match="pickle"):
        load_checkpoint(path)
    assert not (tmp_path / "witness").exists()
    loaded = newest_checkpoint(folder)
    assert loaded is not None
    assert loaded.values["step"] == 20
