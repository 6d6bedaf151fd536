"""Several processes: they train to what one would, see every image once, and none outlives the others."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dark_halo_scope
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.images.samplers import SamplerSettings, epoch_plan
from dark_halo_scope.models.weights_file import read_tensors
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.distributed import Ranks, rank_device
from dark_halo_scope.training.stepping import part_of

from .toys import toy_settings, write_packed, write_toy_split

DEADLINE_S = 240


def settings(**changes: Any) -> TrainSettings:
    """A network that computes an image alike in any company: layer norms, no dropout. All else is drawn."""
    model = {"backbone": "test_convnext", "pretrained": False, "hidden": 8, "dropout": 0.0, "crop_pix": 32}
    values: dict[str, Any] = {
        "model": model,
        "augmentation": {"noise_sigma": 0.1, "shift_pix": 1},
        "loss": {"pair_ranking": 0.5},
        "sampler": {"batch_pairs": 5, "per_pair": "all"},  # a part of 3 pairs and one of 2
        # AdamW makes a whole step of a gradient that is nothing but rounding: a small rate keeps such weights close.
        "optimizer": {"lr": 1e-3, "warmup_epochs": 0.5, "ema_decay": 0.9, "accumulate": 2},
        "tracking": {"kind": "none"},
        **changes,
    }
    return toy_settings(**values)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    splits = {"train": write_toy_split(folder / "train", 23, 1), "val": write_toy_split(folder / "val", 8, 2)}
    return write_packed(folder / "packed.json", splits)


def started(packed: Path, folder: Path, processes: int, crash_at: str = "", **changes: Any) -> subprocess.Popen[str]:
    """A training in processes of its own; its results go to `folder`."""
    options = {
        "--packed": packed,
        "--settings": settings(**changes).model_dump_json(),
        "--output": folder / "best.json",
        "--history": folder / "history.json",
        "--checkpoints": folder / "checkpoints",
        "--device": "cpu",
        "--gpus": processes,
        "--threads": processes,
    }
    command = [sys.executable, "-m", "dark_halo_scope.training.train"]
    command += [str(part) for option in options.items() for part in option]
    environment = {**os.environ, "PYTHONPATH": str(Path(dark_halo_scope.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    if crash_at:
        environment["DHS_CRASH_AT"] = crash_at
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def trained(packed: Path, folder: Path, processes: int, **changes: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """history.json and all weights of a training that ends well."""
    process = started(packed, folder, processes, **changes)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    best = json.loads((folder / "best.json").read_text())
    tensors = read_tensors(folder / best["weights"]["uri"])
    weights = torch.cat([tensors[name].flatten().float() for name in sorted(tensors)])
    return json.loads((folder / "history.json").read_text()), weights


@pytest.fixture(scope="module")
def alone(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], torch.Tensor]:
    return trained(packed, tmp_path_factory.mktemp("alone"), 1)


def assert_same(one: tuple[dict[str, Any], torch.Tensor], other: tuple[dict[str, Any], torch.Tensor]) -> None:
    for first, second in zip(one[0]["epochs"], other[0]["epochs"], strict=True):
        assert first == pytest.approx(second, rel=1e-5)
    torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-5)


def test_two_processes_train_to_the_losses_and_weights_of_one(
    packed: Path, alone: tuple[dict[str, Any], torch.Tensor], tmp_path: Path
) -> None:
    assert_same(alone, trained(packed, tmp_path, 2))


def test_a_process_that_dies_ends_all_with_a_sentence_and_one_process_can_go_on(
    packed: Path, alone: tuple[dict[str, Any], torch.Tensor], tmp_path: Path
) -> None:
    checkpoints = {"every_steps": 1}
    process = started(packed, tmp_path, 2, crash_at="training_step:4", checkpoints=checkpoints)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert f"of 2 ended with status {-signal.SIGKILL}, and the others were stopped" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "checkpoints").glob("*/step-*"))
    assert_same(alone, trained(packed, tmp_path, 1, checkpoints=checkpoints))


def test_an_error_of_one_process_ends_all_of_them(packed: Path, tmp_path: Path) -> None:
    process = started(packed, tmp_path, 2, selection={"min_theta_over_psf": 99})
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "No pair is left to train on" in errors
    assert "Traceback" not in errors


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def waited_for(what: str, deadline_s: float = DEADLINE_S) -> Iterator[None]:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        yield
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {deadline_s} s")


def test_processes_die_with_their_launcher(packed: Path, tmp_path: Path) -> None:
    process = started(packed, tmp_path, 2, epochs=1000, checkpoints={"every_steps": 1})
    try:
        for _ in waited_for("a first checkpoint"):
            assert process.poll() is None
            if list((tmp_path / "checkpoints").glob("*/step-*")):
                break
        ranks = children(process.pid)
        assert len(ranks) >= 2
    finally:
        process.kill()
        process.wait()
    for _ in waited_for("the end of all processes", 20):
        if not any(alive(pid) for pid in ranks):
            break


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "sampler",
    [
        {"batch_pairs": 5, "per_pair": "all"},
        {"batch_pairs": 5, "per_pair": "one", "negative_prob": 0.2},
        {"draw": "images", "batch_images": 7},
    ],
)
def test_no_image_is_seen_twice_or_lost_by_any_number_of_processes(ranks: int, sampler: dict[str, Any]) -> None:
    plans = epoch_plan(SamplerSettings.model_validate(sampler), np.arange(23), np.arange(9), 2, 1, 0)
    for plan in plans:
        parts = [part_of(plan, Ranks(rank, ranks)) for rank in range(ranks)]
        real = [part for part in parts if part.mine.weight_B.any()]
        places = np.concatenate([part.places for part in real])
        np.testing.assert_array_equal(np.sort(places), np.arange(len(plan)))
        for part in real:
            np.testing.assert_array_equal(part.mine.row_B, plan.row_B[part.places])
            np.testing.assert_array_equal(part.mine.kind_B, plan.kind_B[part.places])
            assert part.mine.total == len(plan)


def test_a_process_without_an_image_of_its_own_takes_part_without_weight() -> None:
    plan = epoch_plan(SamplerSettings(batch_pairs=2, per_pair="one"), np.arange(2), np.arange(0), 1, 1, 0)[0]
    spare = part_of(plan, Ranks(2, 3))
    assert len(spare.mine) == 1
    assert spare.mine.weight_B.tolist() == [0]
    assert spare.mine.pairs == 0


def test_more_gpus_than_there_are_is_one_sentence() -> None:
    missing = torch.cuda.device_count() + 1
    with pytest.raises(ConfigError, match=f"--gpus {missing} was asked for and this machine has {missing - 1}"):
        rank_device("auto", missing)
    assert rank_device("cpu", missing) == "cpu"
