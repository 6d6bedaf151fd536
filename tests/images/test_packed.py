"""What opening a packed split promises: what was packed, unchanged, or an error."""

import json
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.images.pack import main
from dark_halo_scope.images.packed import image_batches, image_count, open_packed
from stamp_scene import as_control, stamp_rows, write_stamps


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    rows = [*stamp_rows(30), *(as_control(row) for row in stamp_rows(12, seed=5))]
    stamps, manifest = write_stamps(tmp_path, rows)
    quality = tmp_path / "quality.json"
    quality.write_text(json.dumps({"verdict": "accepted", "stamps_sha256": manifest.sha256}))
    main(["--stamps", str(stamps), "--quality", str(quality), "--output", str(tmp_path / "packed.json")])
    return tmp_path / "packed.json"


def _object(packed: Path, name: str) -> Path:
    return Path.cwd() / load_manifest(packed).uri / name


def test_arrays_are_read_only_memory_maps_of_float16(packed: Path) -> None:
    split = open_packed(packed, "train")
    for array in (split.positive, split.control, split.hard_negative):
        assert isinstance(array, np.memmap)
        assert array.dtype == np.float16
        assert not array.flags.writeable
        assert len(array) == len(split) == split.rows.num_rows


@pytest.mark.parametrize("name", ["train/positive.npy", "train/control.npy", "train/rows.parquet"])
def test_one_flipped_byte_is_an_error_that_names_the_file(packed: Path, name: str) -> None:
    path = _object(packed, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=name):
        open_packed(packed, "train")


def test_a_truncated_or_missing_array_is_an_error(packed: Path) -> None:
    path = _object(packed, "val/hard_negative.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptDataError):
        open_packed(packed, "val")
    path.unlink()
    with pytest.raises(CorruptDataError):
        open_packed(packed, "val")


def test_an_unknown_split_and_another_kind_of_manifest_are_refused(packed: Path) -> None:
    with pytest.raises(BadInputError, match="holdout"):
        open_packed(packed, "holdout")
    with pytest.raises(BadInputError, match="packed"):
        open_packed(packed.with_name("stamps.json"), "train")


def test_batches_hand_out_every_image_once_beside_its_row(packed: Path) -> None:
    split, manifest = open_packed(packed, "train"), load_manifest(packed)
    assert split.negative_rows.num_rows > 3
    for kind, rows in (("control", split.rows), ("negative", split.negative_rows)):
        batches = list(image_batches(manifest, "train", [kind], 3))
        assert {batch.kind for batch in batches} == {kind}
        assert max(len(batch.images) for batch in batches) == 3
        np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), getattr(split, kind))
        assert [task for batch in batches for task in batch.rows["task_id"].to_pylist()] == rows["task_id"].to_pylist()
        starts = np.cumsum([0, *(len(batch.images) for batch in batches)])
        assert [batch.first for batch in batches] == starts[:-1].tolist()
        assert starts[-1] == image_count(manifest, "train", kind)
    both = list(image_batches(manifest, "train", ["positive", "negative"], 1000))
    assert [batch.kind for batch in both] == ["positive", "negative"]


def test_batches_of_damaged_files_and_of_splits_that_are_not_there_are_errors(packed: Path) -> None:
    with pytest.raises(BadInputError, match="holdout"):
        next(image_batches(load_manifest(packed), "holdout", ["control"], 3))
    path = _object(packed, "train/negative_rows.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptDataError, match="negative_rows"):
        next(image_batches(load_manifest(packed), "train", ["negative"], 3))
