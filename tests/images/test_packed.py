"""What opening a packed split promises: what was packed, unchanged, or an error."""

import json
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.images.pack import main
from dark_halo_scope.images.packed import open_packed
from stamp_scene import stamp_rows, write_stamps


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    stamps, manifest = write_stamps(tmp_path, stamp_rows(30))
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
