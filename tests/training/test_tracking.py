"""Trackers: what was logged can be read back, once, by the kept libraries; nothing of the machine gets into files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dark_halo_scope.core.files import read_json
from dark_halo_scope.training.tracking import LAST_STEPS, flat_numbers, open_tracker


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point of every curve in a folder of event files, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(point.step, point.value) for point in accumulator.Scalars(name)] for name in names}


def test_curves_are_read_back_from_tensorboards_files(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", tmp_path / "run", "gen5_prime/main")
    tracker.log(1, {"train_loss": 0.5})
    tracker.log(2, {"train_loss": 0.25, "mean_p": {"control": 0.125}, "why": "text", "none": None})
    tracker.close()
    assert events(tmp_path / "run") == {"train_loss": [(1, 0.5), (2, 0.25)], "mean_p/control": [(2, 0.125)]}


def test_a_point_is_on_disk_once_it_is_logged(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", tmp_path / "run", "gen5_prime/main")
    tracker.log(1, {"train_loss": 0.5})
    assert events(tmp_path / "run") == {"train_loss": [(1, 0.5)]}
    tracker.close()


def test_a_resumed_run_appends_and_repeats_no_step(tmp_path: Path) -> None:
    first = open_tracker("tensorboard", tmp_path / "run", "gen5_prime/main")
    for step in range(5):
        first.log(step, {"train_loss": float(step)})
    first.close()
    # It goes on from a checkpoint that is older than what was logged.
    resumed = open_tracker("tensorboard", tmp_path / "run", "gen5_prime/main")
    for step in range(2, 8):
        resumed.log(step, {"train_loss": float(step), "val_loss": float(step)})
    resumed.close()
    curves = events(tmp_path / "run")
    assert curves["train_loss"] == [(step, float(step)) for step in range(8)]
    assert curves["val_loss"] == [(step, float(step)) for step in range(2, 8)]


_KILLED = """
import os, sys
from pathlib import Path
from dark_halo_scope.training.tracking import open_tracker
tracker = open_tracker("tensorboard", Path(sys.argv[1]), "killed")
for step in range(10**6):
    tracker.log(step, {"train_loss": float(step)})
    print(step, flush=True)
"""


def test_a_run_that_is_killed_leaves_no_step_twice(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    resumed = open_tracker("tensorboard", tmp_path / "run", "killed")
    for step in range(200):
        resumed.log(step, {"train_loss": float(step)})
    resumed.close()
    steps = [step for step, _ in events(tmp_path / "run")["train_loss"]]
    assert len(steps) == len(set(steps))
    # The step at which it was killed may be missing.
    assert len(set(range(200)) - set(steps)) <= 1


def test_nothing_is_written_where_nothing_is_tracked(tmp_path: Path) -> None:
    tracker = open_tracker("none", tmp_path / "run", "name")
    tracker.log(1, {"train_loss": 0.5})
    tracker.close()
    open_tracker("tensorboard", None, "name").log(1, {"train_loss": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", tmp_path / "run", "name")
    tracker.close()
    tracker.close()
    tracker.log(3, {"train_loss": 0.5})
    assert events(tmp_path / "run") == {}


def test_numbers_of_nested_records_have_paths_for_names() -> None:
    values = {"gates": {"G1": {"value": 0.5, "passed": True, "note": "n"}}, "list": [1], "epoch": 3}
    assert flat_numbers(values) == {"gates/G1/value": 0.5, "gates/G1/passed": 1.0, "epoch": 3.0}


CANARY = "canary0123456789canary0123456789canary01"

_WANDB = """
import sys
from pathlib import Path
from dark_halo_scope.training.tracking import open_tracker
for steps in (range(3), range(1, 5)):
    tracker = open_tracker("wandb", Path(sys.argv[1]), "gen5_prime/main")
    for step in steps:
        tracker.log(step, {"train_loss": 0.5 + step, "mean_p": {"control": 0.25}})
    tracker.close()
"""


def logged_steps(run: Path) -> list[int]:
    """Steps in the record of an offline run, read with the library that wrote it."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(run))
    steps = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            assert float(items["train_loss"]) == 0.5 + int(items["_step"])
            steps.append(int(items["_step"]))
    return steps


def test_weights_and_biases_writes_offline_without_network_home_or_secret(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # Any request would be refused at once: nobody listens at this proxy.
    nowhere = "http://127.0.0.1:9"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
        **{name: nowhere for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "WANDB_BASE_URL")},
        "HOME": str(home),
        "WANDB_PROJECT": "lenses",
        "WANDB_API_KEY": CANARY,
    }
    folder = tmp_path / "0123456789abcdef"
    done = subprocess.run(
        [sys.executable, "-c", _WANDB, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    runs = sorted(folder.rglob("*.wandb"))
    assert [run.name for run in runs] == ["run-0123456789abcdef.wandb"] * 2
    assert sorted(step for run in runs for step in logged_steps(run)) == [0, 1, 2, 3, 4]
    assert read_json(folder / LAST_STEPS) == {"train_loss": 4, "mean_p/control": 4}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in done.stdout + done.stderr
