"""A scoring that is killed goes on where it was, and ends with the bytes of one that nobody killed."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.artifacts import CHECKPOINTS, orphans
from dark_halo_scope.core.crash import VARIABLE
from dark_halo_scope.core.manifest import load_manifest, verified_paths
from dark_halo_scope.evaluation import score, score_parts
from dark_halo_scope.evaluation.scores import write_scores

from . import toys
from .packed_files import write_model, write_packed

LIB = Path(__file__).resolve().parents[2] / "lib"
ARGUMENTS = [
    "--model",
    "best.json",
    "--packed",
    "packed.json",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--settings",
    '{"batch": 3}',
]
IN_SIXES = "from dark_halo_scope.evaluation import score, score_parts; score_parts.PART_IMAGES = 6; score.main({})"


class Counting:
    """A network that counts the images that it is shown."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        self.images += len(images)
        return toys.sees_arcs(images, rows)


@pytest.fixture(autouse=True)
def parts_of_six(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_parts, "PART_IMAGES", 6)


def scored_bytes(split: toys.ToySplit, parts: Path, into: Path, network: Counting, made_on: str = "cpu") -> bytes:
    into.mkdir()
    batches = toys.batches(split, 3)
    write_scores(score_parts.score_in_parts(network, batches, "test", parts, made_on), into)
    return (into / "scores.parquet").read_bytes()


def test_a_killed_scoring_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_packed(Path("packed.json"), {"test": toys.make_split(10)})
    write_model(Path("best.json"))
    score.main([*ARGUMENTS, "--output", "whole.json"])

    killed = subprocess.run(
        [sys.executable, "-c", IN_SIXES.format([*ARGUMENTS, "--output", "scores.json"])],
        env=os.environ | {"PYTHONPATH": str(LIB), VARIABLE: "after_rename:control-000000000.json"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not Path("scores.json").exists()
    [parts] = (Path("scores") / CHECKPOINTS).glob("[!.]*[!k]")
    assert sorted(path.name for path in parts.glob("*.json")) == [
        "control-000000000.json",
        "positive-000000000.json",
        "positive-000000006.json",
    ]
    assert [orphan.resumable for orphan in orphans(Path("scores")) if orphan.uri.endswith(parts.name)] == [True]

    with caplog.at_level(logging.INFO):
        score.main([*ARGUMENTS, "--output", "scores.json"])
    assert "16 of 30 images had been scored before." in caplog.messages
    whole, resumed = (verified_paths(load_manifest(Path(name))) for name in ("whole.json", "scores.json"))
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in resumed]
    assert not (Path("scores") / CHECKPOINTS).exists()


def test_parts_of_another_run_are_ignored_and_removed_by_the_next_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_packed(Path("packed.json"), {"test": toys.make_split(4)})
    write_model(Path("best.json"))
    other = Path("scores") / CHECKPOINTS / ("0" * 16)
    other.mkdir(parents=True)
    (other / "positive-000000000.json").write_text('{"files": {}, "made_on": "cpu"}')
    score.main([*ARGUMENTS, "--output", "scores.json"])
    assert load_manifest(Path("scores.json")).rows_out == 12
    assert not other.exists()


def test_what_is_done_is_shown_to_no_network_again(tmp_path: Path) -> None:
    split, first, second = toys.make_split(10), Counting(), Counting()
    done = scored_bytes(split, tmp_path / "parts", tmp_path / "a", first)
    assert scored_bytes(split, tmp_path / "parts", tmp_path / "b", second) == done
    assert (first.images, second.images) == (30, 0)


@pytest.mark.parametrize("damage", ["truncated", "missing", "no marker", "marker of rubbish", "another device"])
def test_a_part_that_is_not_whole_or_of_another_device_is_scored_again(tmp_path: Path, damage: str) -> None:
    split, parts, network = toys.make_split(10), tmp_path / "parts", Counting()
    done = scored_bytes(split, parts, tmp_path / "a", Counting())
    file, marker = parts / "control-000000006.scored.arrow", parts / "control-000000006.json"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "missing":
        file.unlink()
    elif damage == "no marker":
        marker.unlink()
    elif damage == "marker of rubbish":
        marker.write_text('{"files": 3}')
    else:
        marker.write_text(marker.read_text().replace('"cpu"', '"cuda"'))
    assert scored_bytes(split, parts, tmp_path / "b", network) == done
    assert network.images == 4


def test_rows_that_are_left_out_are_left_out_of_a_resumed_scoring_too(tmp_path: Path) -> None:
    split = toys.make_split(9)
    split.control[3:9] = np.nan
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        scored = score_parts.score_in_parts(Counting(), toys.batches(split, 3), "test", tmp_path / "parts", "cpu")
        count, left_out, _ = write_scores(scored, tmp_path / name)
        assert (count, left_out) == (21, 6)
    first, second = (tmp_path / name / "quarantine/scores.parquet" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
