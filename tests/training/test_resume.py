"""Resume after kill -9: the weights are those of a run that was never killed, bit for bit."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dark_halo_scope.core.files import write_json
from dark_halo_scope.images.mined import MinedNegatives
from dark_halo_scope.models.weights import save_model
from dark_halo_scope.models.weights_file import pack_tensors
from dark_halo_scope.training.checkpoints import TENSORS, checkpoint_folders
from dark_halo_scope.training.loop import Trainer
from dark_halo_scope.training.start import StartWeights, open_start

from .toys import ToySplit, toy_galaxies, toy_rows, toy_settings, write_toy_split

CPU = torch.device("cpu")
EPOCHS = 3
CASES: dict[str, dict[str, Any]] = {
    "pairs": {"sampler": {"batch_pairs": 8, "per_pair": "one"}},  # 24 pairs in batches of 8
    "accumulated": {
        "sampler": {"batch_pairs": 3, "per_pair": "all"},  # 8 batches, 3 steps
        "optimizer": {"lr": 3e-3, "warmup_epochs": 0.5, "ema_decay": 0.9, "accumulate": 3},
    },
    # 24 positives, 20 of the pool and 2 x 2 mined ones, and no rings: 48 images in batches of 16.
    "images": {
        "sampler": {
            "draw": "images",
            "batch_images": 16,
            "mined_repeat": 2,
            "curriculum": {"start_hard_negative_prob": 0.0, "end_hard_negative_prob": 0.0},
        },
        # Of so few images any column's own AUC lies far from one half by chance.
        "model": {**toy_settings().model.model_dump(), "meta_auc_limit": 0.8},
    },
    "second stage": {"sampler": {"batch_pairs": 8, "per_pair": "all"}},
}
STEPS = 9  # of each case


def first_stage(folder: Path, split: ToySplit) -> StartWeights:
    """Weights to start from."""
    result = Trainer(toy_settings(epochs=1, optimizer={"warmup_epochs": 0}), split, split, CPU, None).run()
    assert result is not None
    write_json(folder / "best.json", save_model(folder / "best.json", result.model, result.preprocess, {}))
    return open_start(folder / "best.json")


def train(case: str, folder: Path, checkpoints: Path | None) -> tuple[bytes, list[dict[str, Any]]]:
    """The trained weights as bytes, and the history."""
    torch.set_num_threads(1)
    settings = toy_settings(
        epochs=EPOCHS,
        checkpoints={"every_steps": 2},
        augmentation={"noise_sigma": 0.1, "shift_pix": 1},
        **CASES[case],
    )
    train_split = write_toy_split(folder / "train", 24, 1, negatives=20)
    trainer = Trainer(
        settings,
        train_split,
        write_toy_split(folder / "val", 8, 2, negatives=8),
        CPU,
        checkpoints,
        mined=MinedNegatives(toy_galaxies(2, 9), toy_rows("mined", 2, 9)) if case == "images" else None,
        start=first_stage(folder, train_split) if case == "second stage" else None,
    )
    result = trainer.run()
    assert result is not None
    assert trainer.state.step == STEPS
    return pack_tensors(result.model.state_dict()), result.history


def killed_at(case: str, folder: Path, step: int) -> None:
    """Train in a child that is killed right after `step` as kill -9 would, and say that it was."""
    child = os.fork()  # it need not import torch once more, which takes longer than to train
    if child == 0:
        try:
            os.environ["DHS_CRASH_AT"] = f"training_step:{step}"
            train(case, folder, folder / "checkpoints")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


Trained = tuple[bytes, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    threads = torch.get_num_threads()
    trained = {case: train(case, tmp_path_factory.mktemp("uninterrupted"), None) for case in CASES}
    torch.set_num_threads(threads)
    return trained


def test_checkpoints_alone_change_nothing(uninterrupted: dict[str, Trained], tmp_path: Path) -> None:
    assert train("pairs", tmp_path, tmp_path / "checkpoints") == uninterrupted["pairs"]


@pytest.mark.parametrize(
    ("case", "steps"), [("pairs", (4, 7)), ("accumulated", (5,)), ("images", (5,)), ("second stage", (5,))]
)
def test_a_run_that_was_killed_ends_with_the_same_weights_and_history(
    uninterrupted: dict[str, Trained], tmp_path: Path, case: str, steps: tuple[int, ...]
) -> None:
    for step in steps:
        killed_at(case, tmp_path, step)
    assert train(case, tmp_path, tmp_path / "checkpoints") == uninterrupted[case]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_at_ten_random_steps_ends_with_the_same_weights(
    uninterrupted: dict[str, Trained], tmp_path: Path, case: str
) -> None:
    rng = np.random.default_rng(11)
    for attempt, step in enumerate(rng.integers(1, STEPS + 1, 10)):
        folder = tmp_path / str(attempt)
        killed_at(case, folder, int(step))
        assert train(case, folder, folder / "checkpoints") == uninterrupted[case], f"killed at step {step}"


def test_a_truncated_newest_checkpoint_costs_steps_but_not_the_result(
    uninterrupted: dict[str, Trained], tmp_path: Path
) -> None:
    killed_at("pairs", tmp_path, 7)
    newest = checkpoint_folders(tmp_path / "checkpoints")[0]
    (newest / TENSORS).write_bytes((newest / TENSORS).read_bytes()[:100])
    assert train("pairs", tmp_path, tmp_path / "checkpoints") == uninterrupted["pairs"]


def test_a_finished_run_is_not_trained_again(uninterrupted: dict[str, Trained], tmp_path: Path) -> None:
    train("pairs", tmp_path, tmp_path / "checkpoints")
    before = checkpoint_folders(tmp_path / "checkpoints")
    assert train("pairs", tmp_path, tmp_path / "checkpoints") == uninterrupted["pairs"]
    assert checkpoint_folders(tmp_path / "checkpoints") == before
