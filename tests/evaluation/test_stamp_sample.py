"""What the choice of rows for reports promises: random, bounded, the same however rows lie in files."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.stamp_sample import draw_rows, read_images
from dark_halo_scope.injection.schema import encode_stamp

SIZE = 4


def _row(number: int) -> dict[str, Any]:
    stamp = np.full((3, SIZE, SIZE), number, np.float32)
    task = hashlib.sha256(str(number).encode()).hexdigest()
    return {"task_id": task, "number": number, "even": number % 2 == 0, "stamp_npz": encode_stamp(stamp)}


def _write(folder: Path, rows: list[dict[str, Any]], files: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for index in range(files):
        paths.append(folder / f"{index:03d}.parquet")
        pq.write_table(pa.Table.from_pylist(rows[index::files]), paths[-1], row_group_size=5)
    return paths


def _all(rows: pa.Table) -> np.ndarray:
    return np.ones(rows.num_rows, dtype=bool)


@pytest.mark.parametrize("files", [1, 7, 40])
def test_the_rows_with_the_smallest_ids_are_drawn_however_they_lie_in_files(tmp_path: Path, files: int) -> None:
    rows = [_row(number) for number in range(200)]
    drawn, total = draw_rows(_write(tmp_path, rows[::-1], files), ["number"], _all, 15)
    assert total == 200
    assert drawn["task_id"].to_pylist() == sorted(row["task_id"] for row in rows)[:15]
    assert drawn.num_rows == 15


def test_only_what_is_wanted_is_drawn_and_counted(tmp_path: Path) -> None:
    paths = _write(tmp_path, [_row(number) for number in range(60)], 6)
    drawn, total = draw_rows(paths, ["number", "even"], lambda rows: rows["even"].to_numpy(), 100)
    assert total == drawn.num_rows == 30
    assert set(drawn["number"].to_pylist()) == set(range(0, 60, 2))


def test_a_column_that_one_file_lacks_is_null_there(tmp_path: Path) -> None:
    first = _write(tmp_path / "a", [_row(1)], 1)
    second = tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist([_row(2)]).drop_columns(["number"]), second)
    drawn, _ = draw_rows([*first, second], ["number", "nowhere"], _all, 10)
    assert sorted(drawn["number"].to_pylist(), key=str) == [1, None]
    assert "nowhere" not in drawn.column_names


def test_each_row_gets_its_own_image_across_files_and_row_groups(tmp_path: Path) -> None:
    paths = _write(tmp_path, [_row(number) for number in range(50)], 3)
    drawn, _ = draw_rows(paths, ["number"], _all, 20)
    images = read_images(paths, drawn, "stamp_npz", SIZE)
    assert images[:, 1, 2, 3].tolist() == drawn["number"].to_pylist()


def test_missing_damaged_and_foreign_stamps_are_nan_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [_row(number) for number in range(4)]
    rows[0]["stamp_npz"] = None
    rows[1]["stamp_npz"] = rows[1]["stamp_npz"][:-30]
    rows[2]["stamp_npz"] = encode_stamp(np.zeros((3, SIZE + 2, SIZE + 2), np.float32))
    paths = _write(tmp_path, rows, 1)
    drawn, _ = draw_rows(paths, ["number"], _all, 10)
    images = read_images(paths, drawn, "stamp_npz", SIZE)
    whole = np.isfinite(images).all(axis=(1, 2, 3))
    assert np.array(drawn["number"].to_pylist())[whole].tolist() == [3]


def test_a_file_that_holds_no_stamps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(BadInputError, match="lacks the columns task_id"):
        draw_rows([path], ["a"], _all, 3)


def test_no_file_is_no_row() -> None:
    drawn, total = draw_rows([], ["a"], _all, 3)
    assert drawn.num_rows == total == 0
