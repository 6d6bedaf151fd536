"""A run's history: what a person reads, and every number behind it, which is what it was when it was written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dark_halo_scope.core.artifacts import verify_result
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.history import check_summary, epoch_table, read_history, write_history

MODULE = "dark_halo_scope.training.train"


def entry(epoch: int, **changes: Any) -> dict[str, Any]:
    check = {"kind": "check", "name": "loss_gap", "value": 0.05 * epoch, "n": 300, "passed": epoch < 2, "epoch": epoch}
    return {
        "epoch": epoch,
        "train_loss": 0.5 - 0.1 * epoch,
        "val_loss": 0.5,
        "val_auc": 0.9,
        "val_auc_hard_negative": 0.8,
        "mean_p": {"positive": 0.7, "control": 0.1},
        "checks": [check],
        **changes,
    }


@dataclass
class Result:
    """What the loop gives."""

    best: dict[str, Any]
    history: list[dict[str, Any]]
    decisions: list[dict[str, Any]]


RESULT = Result(
    entry(1),
    [entry(0), entry(1, gates={"gates": {"G1": {"value": 0.5, "passed": True}}, "verdict": "pass"}), entry(2)],
    [{"kind": "end", "name": "end of training", "epoch": 2, "reason": "all epochs done"}],
)


def write(folder: Path, result: Result = RESULT) -> Path:
    path = folder / "results" / "history.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "packed.json").write_text("{}")
    write_history(path, result, MODULE, TrainSettings(), [folder / "packed.json"])
    return path


def test_a_person_reads_the_best_epoch_the_curves_the_checks_and_the_decisions(tmp_path: Path) -> None:
    history = read_json(write(tmp_path))
    assert history["best_epoch"] == 1
    assert history["best"]["mean_p"] == {"positive": 0.7, "control": 0.1}
    assert [epoch["train_loss"] for epoch in history["epochs"]] == [0.5, 0.4, 0.3]
    assert history["decisions"] == RESULT.decisions
    assert history["checks"]["loss_gap"]["failed_epochs"] == [2]
    assert history["checks"]["loss_gap"]["last"]["value"] == 0.1


def test_the_table_has_every_number_of_every_epoch(tmp_path: Path) -> None:
    table = read_history(write(tmp_path)).table
    assert table.num_rows == 3
    assert table.column("epoch").to_pylist() == [0, 1, 2]
    assert table.column("mean_p.control").to_pylist() == [0.1] * 3
    assert table.column("checks.loss_gap.value").to_pylist() == [0.0, 0.05, 0.1]
    assert table.column("checks.loss_gap.passed").to_pylist() == [True, True, False]
    assert table.column("gates.gates.G1.value").to_pylist() == [None, 0.5, None]
    assert table.column("gates.verdict").to_pylist() == [None, "pass", None]


def test_a_number_that_is_whole_in_one_epoch_and_not_in_another_keeps_its_value() -> None:
    table = epoch_table([{"epoch": 0, "value": 3}, {"epoch": 1, "value": 0.5}, {"epoch": 2, "value": None}])
    assert table.column("value").to_pylist() == [3.0, 0.5, None]


def test_the_same_history_is_the_same_bytes_under_the_same_name(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.joinpath("history").iterdir()] == [
        path.name for path in second.parent.joinpath("history").iterdir()
    ]


def test_verify_manifests_looks_at_the_table_too(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert verify_result(path, read_json(path)) == 1
    (table,) = path.parent.joinpath("history").iterdir()
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptDataError):
        verify_result(path, read_json(path))


def test_a_byte_that_flipped_is_an_error_not_a_number(tmp_path: Path) -> None:
    path = write(tmp_path)
    (table,) = path.parent.joinpath("history").iterdir()
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(bytes(data))
    with pytest.raises(CorruptDataError, match="train again"):
        read_history(path)
    table.unlink()
    with pytest.raises(CorruptDataError, match="cannot be read"):
        read_history(path)


def test_a_table_elsewhere_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    history = read_json(path)
    history["table"]["uri"] = "../../packed.json"
    write_json(path, history)
    with pytest.raises(BadInputError, match="outside"):
        read_history(path)


def test_another_json_is_no_history(tmp_path: Path) -> None:
    write_json(tmp_path / "history.json", {"epochs": []})
    with pytest.raises(BadInputError, match="no history"):
        read_history(tmp_path / "history.json")


def test_a_check_that_came_once_keeps_its_last_record() -> None:
    saliency = {"name": "saliency", "value": 0.4, "passed": None, "epoch": 1}
    summary = check_summary([entry(0), entry(1, checks=[saliency]), entry(2)])
    assert summary["saliency"] == {"failed_epochs": [], "last": saliency}
