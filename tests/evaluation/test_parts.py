"""Parts of any run that may be killed: made once, read back as they were, and gone when the run has ended."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dark_halo_scope.core.artifacts import CHECKPOINTS
from dark_halo_scope.core.errors import LockHeldError
from dark_halo_scope.evaluation.parts import Scored, in_parts, is_done, parts_folder, read_part

PARTS = [("a", [1, 2]), ("b", [3])]


class Counting:
    """Makes one pair of tables a number, the second without rows for odd ones, and remembers the numbers."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, numbers: list[int]) -> Iterator[Scored]:
        for number in numbers:
            self.made.append(number)
            table = pa.table({"n": pa.array([number] * 3)})
            yield table, table.slice(0, (number + 1) % 2)


def test_parts_come_in_order_and_are_made_once(tmp_path: Path) -> None:
    first, second, resumed = Counting(), Counting(), list[int]()
    made = list(in_parts(PARTS, first, tmp_path / "parts", "cpu"))
    assert [scored["n"][0].as_py() for scored, _ in made] == [1, 2, 3]
    assert list(in_parts(PARTS, second, tmp_path / "parts", "cpu", resumed.append)) == made
    assert (first.made, second.made) == ([1, 2, 3], [])
    # What is left out was dealt with too.
    assert resumed == [7, 3]


@pytest.mark.parametrize("damage", ["none", "truncated", "missing", "no marker", "marker of rubbish", "another device"])
def test_a_part_is_done_where_it_would_be_read_and_the_question_is_silent(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = list(in_parts(PARTS, Counting(), tmp_path, "cpu"))
    file, marker = tmp_path / "b.left_out.arrow", tmp_path / "b.json"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "missing":
        file.unlink()
    elif damage == "no marker":
        marker.unlink()
    elif damage == "marker of rubbish":
        marker.write_text("[]")
    device = "cuda" if damage == "another device" else "cpu"
    with caplog.at_level(logging.INFO):
        assert is_done(tmp_path, "b", device) is (damage == "none")
    assert caplog.messages == []
    assert read_part(tmp_path, "b", device) == (made[2:] if damage == "none" else None)
    assert len(caplog.messages) == (damage not in ("none", "no marker"))


def test_the_folder_is_locked_while_a_run_works_and_gone_when_it_ended(tmp_path: Path) -> None:
    output, other = tmp_path / "scores.json", tmp_path / "scores" / CHECKPOINTS / ("0" * 16)
    other.mkdir(parents=True)
    with parts_folder(output, "1" * 16) as folder:
        assert folder == other.with_name("1" * 16)
        with pytest.raises(LockHeldError), parts_folder(output, "1" * 16):
            pass
        list(in_parts(PARTS, Counting(), folder, "cpu"))
    assert not other.parent.exists()


def test_the_parts_of_a_run_that_fails_stay(tmp_path: Path) -> None:
    def fail() -> None:
        with parts_folder(tmp_path / "scores.json", "1" * 16) as folder:
            list(in_parts(PARTS, Counting(), folder, "cpu"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    checkpoints = tmp_path / "scores" / CHECKPOINTS
    assert is_done(checkpoints / ("1" * 16), "b", "cpu")
    assert list(checkpoints.glob("*.lock")) == []
