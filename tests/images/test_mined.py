"""What opening mined hard negatives promises: what was mined, unchanged, or an error."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.images.mined import HARD_MINED, IMAGES, KIND, ROWS, open_mined

SIZE = 8


def write_mined(path: Path, count: int, rows: int | None = None, kind: str = KIND) -> np.ndarray:
    """hard_negatives.json of random images; returns these."""
    images = np.random.default_rng(count).normal(size=(count, 3, SIZE, SIZE)).astype(np.float16)
    number = count if rows is None else rows
    with attempt(path, kind, "dark_halo_scope.core.verify_manifests", {}, []) as work:
        np.save(work.prefix / IMAGES, images)
        table = pa.table({"task_id": [f"{i:04d}" for i in range(number)], "control_kind": [HARD_MINED] * number})
        pq.write_table(table, work.prefix / ROWS)
        work.publish(rows_out=count, facts={"size": SIZE, "bands": "grz"})
    return images


def test_images_are_a_read_only_memory_map_beside_their_rows(tmp_path: Path) -> None:
    images = write_mined(tmp_path / "hard_negatives.json", 5)
    mined = open_mined(tmp_path / "hard_negatives.json")
    assert len(mined) == mined.rows.num_rows == 5
    assert isinstance(mined.images, np.memmap)
    assert not mined.images.flags.writeable
    np.testing.assert_array_equal(mined.images, images)


def test_none_at_all_is_a_valid_answer(tmp_path: Path) -> None:
    write_mined(tmp_path / "hard_negatives.json", 0)
    mined = open_mined(tmp_path / "hard_negatives.json")
    assert (len(mined), mined.images.shape) == (0, (0, 3, SIZE, SIZE))


@pytest.mark.parametrize("name", [IMAGES, ROWS])
def test_one_flipped_byte_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    write_mined(tmp_path / "hard_negatives.json", 5)
    path = Path.cwd() / load_manifest(tmp_path / "hard_negatives.json").uri / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=name):
        open_mined(tmp_path / "hard_negatives.json")


def test_images_without_their_rows_and_other_manifests_are_refused(tmp_path: Path) -> None:
    write_mined(tmp_path / "hard_negatives.json", 5, rows=4)
    with pytest.raises(CorruptDataError, match="4 rows where its arrays have 5"):
        open_mined(tmp_path / "hard_negatives.json")
    write_mined(tmp_path / "packed.json", 5, kind="packed")
    with pytest.raises(BadInputError, match="'packed'"):
        open_mined(tmp_path / "packed.json")
