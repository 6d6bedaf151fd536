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
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.weights_file import read_tensors
from dark_halo_scope.training import train
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.distributed import Ranks, rank_device
from dark_halo_scope.training.loop import DECISIONS
from dark_halo_scope.training.stepping import check_shareable, part_of

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
        **changes,
    }
    return toy_settings(**values)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    splits = {"train": write_toy_split(folder / "train", 23, 1), "val": write_toy_split(folder / "val", 8, 2)}
    return write_packed(folder / "packed.json", splits)


def arguments(packed: Path, folder: Path, processes: int, **changes: Any) -> list[str]:
    """Of a training whose results go to `folder`."""
    options = {
        "--packed": packed,
        "--settings": settings(**changes).model_dump_json(),
        "--output": folder / "best.json",
        "--history": folder / "history.json",
        "--checkpoints": folder / "checkpoints",
        "--device": "cpu",
        "--gpus": processes,
        "--threads": processes,
        "--tracking": "none",
    }
    return [str(part) for option in options.items() for part in option]


def started(packed: Path, folder: Path, crash_at: str = "", **changes: Any) -> subprocess.Popen[str]:
    """A training in two processes."""
    command = [sys.executable, "-m", "dark_halo_scope.training.train", *arguments(packed, folder, 2, **changes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(dark_halo_scope.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    if crash_at:
        environment["DHS_CRASH_AT"] = crash_at
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def errors_of(process: subprocess.Popen[str], status: int) -> str:
    """What a training said that ended with this status."""
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    return errors


def trained_alone(packed: Path, folder: Path, **changes: Any) -> "Trained":
    """A training in this process."""
    threads = torch.get_num_threads()
    try:
        train.main(arguments(packed, folder, 1, **changes))
    finally:
        torch.set_num_threads(threads)
    return result_in(folder)


Trained = tuple[dict[str, Any], torch.Tensor]


def result_in(folder: Path) -> Trained:
    """history.json and all weights of a training that ended well."""
    best = json.loads((folder / "best.json").read_text())
    tensors = read_tensors(folder / best["weights"]["uri"])
    weights = torch.cat([tensors[name].flatten().float() for name in sorted(tensors)])
    return json.loads((folder / "history.json").read_text()), weights


@pytest.fixture(scope="module")
def alone(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_alone(packed, tmp_path_factory.mktemp("alone"))


def assert_same(one: Trained, other: Trained) -> None:
    for first, second in zip(one[0]["epochs"], other[0]["epochs"], strict=True):
        assert first == pytest.approx(second, rel=1e-5)
    torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-5)


def test_two_processes_train_to_the_losses_and_weights_of_one(packed: Path, alone: Trained, tmp_path: Path) -> None:
    errors_of(started(packed, tmp_path), 0)
    assert_same(alone, result_in(tmp_path))


@pytest.mark.slow
def test_a_process_that_dies_ends_all_with_a_sentence_and_one_process_can_go_on(
    packed: Path, alone: Trained, tmp_path: Path
) -> None:
    checkpoints = {"every_steps": 1}
    errors = errors_of(started(packed, tmp_path, crash_at="training_step:4", checkpoints=checkpoints), 1)
    assert f"of 2 ended with status {-signal.SIGKILL}, and the others were stopped" in errors
    assert list((tmp_path / "checkpoints").glob("*/step-*"))
    assert_same(alone, trained_alone(packed, tmp_path, checkpoints=checkpoints))


@pytest.mark.slow
def test_an_error_of_all_processes_ends_them_and_is_said_once(packed: Path, tmp_path: Path) -> None:
    errors = errors_of(started(packed, tmp_path, model=toy_settings().model.model_dump()), 1)
    assert errors.count("small_cnn has batch normalisation, whose statistics 2 processes on the CPU cannot share") == 1
    assert "and the others were stopped" in errors


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_said_once_and_its_pairs_are_written_before_all_end(
    packed: Path, tmp_path: Path
) -> None:
    optimizer = {"lr": 1e30, "warmup_epochs": 0, "clip_norm": None}
    errors = errors_of(started(packed, tmp_path, optimizer=optimizer), 1)
    assert errors.count("is NaN or infinite at epoch 1, step ") == 1
    (file,) = (tmp_path / "checkpoints").glob(f"*/{DECISIONS}")
    record = json.loads(file.read_text())[-1]
    assert record["name"] == "nan"
    assert 4 <= len(record["task_ids"]) <= 5  # of the whole batch, not of one process' part
    assert str(file) in errors


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


@pytest.mark.slow
def test_processes_die_with_their_launcher(packed: Path, tmp_path: Path) -> None:
    process = started(packed, tmp_path, epochs=1000, checkpoints={"every_steps": 1})
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


@pytest.mark.parametrize("backbone", ["small_cnn", "resnet18"])
def test_batch_normalisation_is_refused_only_where_its_statistics_cannot_be_shared(backbone: str) -> None:
    model = LensFinder6CH(ModelSettings(backbone=backbone, pretrained=False), 6)
    with pytest.raises(ConfigError, match=f"{backbone} has batch normalisation, .* take --gpus 1, a GPU for each, or"):
        check_shareable(model, torch.device("cpu"), Ranks(0, 2), backbone)
    check_shareable(model, torch.device("cpu"), Ranks(), backbone)
    check_shareable(model, torch.device("cuda"), Ranks(0, 2), backbone)
    normed = LensFinder6CH(ModelSettings(backbone="test_convnext", pretrained=False), 6)
    check_shareable(normed, torch.device("cpu"), Ranks(0, 2), "test_convnext")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_share_the_statistics_of_batch_normalisation(packed: Path, tmp_path: Path) -> None:
    options = {"model": {**toy_settings().model.model_dump(), "dropout": 0.0}, "precision": "float32", "compile": "off"}
    results = []
    for gpus in (1, 2):
        folder = tmp_path / str(gpus)
        command = arguments(packed, folder, gpus, **options)
        command[command.index("--device") + 1] = "cuda"
        train.main(command)
        results.append(result_in(folder))
    for one, two in zip(results[0][0]["epochs"], results[1][0]["epochs"], strict=True):
        assert one == pytest.approx(two, rel=1e-3)
