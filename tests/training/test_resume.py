"""Resume after kill -9: the weights are those of a run that was never killed, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dark_halo_scope.models.weights_file import pack_tensors
from dark_halo_scope.training.checkpoints import TENSORS, checkpoint_folders
from dark_halo_scope.training.loop import Trainer

from .toys import toy_settings, write_toy_split

EPOCHS, STEPS = 3, 9  # 24 pairs in batches of 8

# The child trains in a process of its own, which the crash point kills as kill -9 would.
CHILD = """
import sys
from pathlib import Path
tests, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(tests), str(tests.parent / "lib")]
from training.test_resume import train
train(folder, folder / "checkpoints")
"""


def train(folder: Path, checkpoints: Path | None) -> bytes:
    """The trained weights as bytes."""
    torch.set_num_threads(1)
    settings = toy_settings(
        epochs=EPOCHS,
        checkpoints={"every_steps": 2},
        augmentation={"noise_sigma": 0.1, "shift_pix": 1},
        sampler={"batch_pairs": 8, "per_pair": "one"},
    )
    train_split, val_split = write_toy_split(folder / "train", 24, 1), write_toy_split(folder / "val", 8, 2)
    trainer = Trainer(settings, train_split, val_split, torch.device("cpu"), checkpoints)
    return pack_tensors(trainer.run().model.state_dict())


def killed_at(folder: Path, step: int) -> None:
    """Train in a child that is killed right after `step`, and say that it was."""
    environment = {**os.environ, "DHS_CRASH_AT": f"training_step:{step}", "OMP_NUM_THREADS": "1"}
    tests = str(Path(__file__).parents[1])
    child = subprocess.run([sys.executable, "-c", CHILD, tests, str(folder)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    threads = torch.get_num_threads()
    weights = train(tmp_path_factory.mktemp("uninterrupted"), None)
    torch.set_num_threads(threads)
    return weights


def test_checkpoints_alone_change_nothing(uninterrupted: bytes, tmp_path: Path) -> None:
    assert train(tmp_path, tmp_path / "checkpoints") == uninterrupted


def test_a_run_killed_twice_ends_with_the_same_weights(uninterrupted: bytes, tmp_path: Path) -> None:
    for step in (4, 7):
        killed_at(tmp_path, step)
    assert train(tmp_path, tmp_path / "checkpoints") == uninterrupted


@pytest.mark.slow
def test_a_run_killed_at_ten_random_steps_ends_with_the_same_weights(uninterrupted: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for attempt, step in enumerate(rng.integers(1, STEPS + 1, 10)):
        folder = tmp_path / str(attempt)
        killed_at(folder, int(step))
        assert train(folder, folder / "checkpoints") == uninterrupted, f"killed at step {step}"


def test_a_truncated_newest_checkpoint_costs_steps_but_not_the_result(uninterrupted: bytes, tmp_path: Path) -> None:
    killed_at(tmp_path, 7)
    newest = checkpoint_folders(tmp_path / "checkpoints")[0]
    (newest / TENSORS).write_bytes((newest / TENSORS).read_bytes()[:100])
    assert train(tmp_path, tmp_path / "checkpoints") == uninterrupted


def test_a_finished_run_is_not_trained_again(uninterrupted: bytes, tmp_path: Path) -> None:
    train(tmp_path, tmp_path / "checkpoints")
    before = checkpoint_folders(tmp_path / "checkpoints")
    assert train(tmp_path, tmp_path / "checkpoints") == uninterrupted
    assert checkpoint_folders(tmp_path / "checkpoints") == before
