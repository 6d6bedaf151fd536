"""What packing promises: row i describes image i, nothing bad gets in, and what stays out is counted."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.images.codec import decode_stamp, encode_stamp
from dark_halo_scope.images.config import PackSettings
from dark_halo_scope.images.pack import _write_split, main, plan
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.injection.schema import hard_negative_column
from stamp_scene import SIZE, stamp_rows, write_stamps


def _pack(folder: Path, rows: list[dict], settings: dict | None = None, quality: dict | None = None, **kwargs) -> Path:
    stamps, manifest = write_stamps(folder, rows, **kwargs)
    verdict = {"verdict": "accepted", "reasons": [], "stamps_sha256": manifest.sha256}
    (folder / "quality.json").write_text(json.dumps(verdict if quality is None else quality))
    output = folder / "packed.json"
    arguments = ["--stamps", str(stamps), "--quality", str(folder / "quality.json"), "--output", str(output)]
    main([*arguments, "--settings", json.dumps(settings or {})])
    return output


def _facts(output: Path) -> dict:
    return load_manifest(output, "packed").facts


def test_every_image_lies_at_its_rows_place_sorted_by_task_id(tmp_path: Path) -> None:
    rows = stamp_rows()
    by_task = {row["task_id"]: row for row in rows}
    output = _pack(tmp_path, rows, {"batch_rows": 7})
    total = 0
    for split in ("train", "val", "test"):
        packed = open_packed(output, split)
        tasks = packed.rows["task_id"].to_pylist()
        assert tasks == sorted(row["task_id"] for row in rows if row["split"] == split)
        assert "_row" not in packed.rows.column_names
        assert not any(name.endswith("_npz") for name in packed.rows.column_names)
        for index, task in enumerate(tasks):
            for kind, column in (
                ("positive", "stamp_npz"),
                ("control", "ctrl_stamp_npz"),
                ("hard_negative", "hardneg_stamp_npz"),
            ):
                expected = decode_stamp(by_task[task][column]).astype(np.float16)
                np.testing.assert_array_equal(getattr(packed, kind)[index], expected)
        total += len(tasks)
    assert total == len(rows)
    assert _facts(output)["splits"]["train"] > _facts(output)["splits"]["val"] > 0
    assert _facts(output)["size"] == SIZE


def test_the_arrays_do_not_depend_on_how_rows_lie_in_files(tmp_path: Path) -> None:
    rows = stamp_rows(40)
    sums = []
    for name, order, files in (("a", rows, 1), ("b", rows[::-1], 4)):
        folder = tmp_path / name
        folder.mkdir()
        sums.append(load_manifest(_pack(folder, order, files=files)).sha256)
    assert sums[0] == sums[1]


def test_rows_that_cannot_be_trained_on_stay_out_and_are_counted_by_reason(tmp_path: Path) -> None:
    rows = stamp_rows(60)
    image = decode_stamp(rows[0]["stamp_npz"])
    not_a_number, huge = image.copy(), image.copy()
    not_a_number[0, 3, 3], huge[2, 1, 1] = np.nan, 7e4
    rows[0] |= {"cutout_ok": 0, "stamp_npz": None, "cutout_reason": "psfsize 0 in g"}
    rows[1] |= {"is_control": 1, "ctrl_stamp_npz": None, "hardneg_stamp_npz": None}
    rows[2]["stamp_npz"] = encode_stamp(not_a_number)
    rows[3]["hardneg_stamp_npz"] = encode_stamp(huge)
    rows[4]["ctrl_stamp_npz"] = None
    rows[5]["ctrl_stamp_npz"] = rows[5]["ctrl_stamp_npz"][:-40]
    rows[6]["split"] = "holdout"
    rows[8] |= {name: rows[9][name] for name in ("brickname", "ra", "dec", "config_id", "replicate", "split")}
    output = _pack(tmp_path, rows)
    assert _facts(output)["excluded"] == {
        "cutout failed": 1,
        "duplicate": 1,
        "pixels beyond float16": 1,
        "pixels not finite": 1,
        "stamp missing": 1,
        "stamp not readable": 1,
        "unknown split": 1,
        "unpaired control": 1,
    }
    manifest = load_manifest(output)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (60, 52, 8)
    for split in ("train", "val", "test"):
        packed = open_packed(output, split)
        assert np.isfinite(packed.positive.astype(np.float32)).all()
        assert len(packed) == packed.positive.shape[0]


def test_a_refused_dataset_is_not_packed_and_the_reason_is_said(tmp_path: Path) -> None:
    rows = stamp_rows(20)
    _, manifest = write_stamps(tmp_path, rows)
    refused = {"verdict": "refused", "reasons": ["3 cells leak"], "stamps_sha256": manifest.sha256}
    with pytest.raises(BadInputError, match="3 cells leak"):
        _pack(tmp_path, rows, quality=refused)
    with pytest.raises(BadInputError, match="other stamps"):
        _pack(tmp_path, rows, quality={"verdict": "accepted", "stamps_sha256": "0" * 64})
    with pytest.raises(BadInputError, match="no verdict"):
        _pack(tmp_path, rows, quality={})
    assert not (tmp_path / "packed.json").exists()


def test_stamps_of_two_sizes_and_foreign_files_are_refused(tmp_path: Path) -> None:
    rows = stamp_rows(20)
    rows[3]["stamp_size"] = 101
    with pytest.raises(BadInputError, match="sizes"):
        _pack(tmp_path, rows)
    with pytest.raises(BadInputError, match="lacks the columns"):
        _pack(tmp_path, stamp_rows(20), change=lambda table: table.drop_columns(["ctrl_stamp_npz", "split"]))


def test_a_split_without_rows_is_an_empty_array(tmp_path: Path) -> None:
    rows = [row for row in stamp_rows(60) if row["split"] != "val"]
    packed = open_packed(_pack(tmp_path, rows), "val")
    assert packed.positive.shape == (0, 3, SIZE, SIZE)
    assert len(packed) == 0


def test_extra_hard_negatives_are_packed_where_asked_for(tmp_path: Path) -> None:
    rows = stamp_rows(20)
    for row in rows:
        row[hard_negative_column("blocks")] = row["stamp_npz"]
    output = _pack(tmp_path, rows, {"extra_hard_negatives": ["blocks"]}, extra=("blocks",))
    packed = open_packed(output, "train")
    np.testing.assert_array_equal(packed.extra["blocks"], packed.positive)


def test_memory_holds_a_batch_not_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call takes more rows of blobs than `batch_rows`."""
    stamps, _ = write_stamps(tmp_path, stamp_rows(60), files=1)
    paths = sorted((tmp_path / "stamps").rglob("*.parquet"))
    planned = plan(paths, ["stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz"])
    seen: list[int] = []

    class Counting:
        def advance(self, count: int) -> None:
            seen.append(count)

    settings = PackSettings(batch_rows=8)
    columns = {"positive": "stamp_npz"}
    bad = _write_split(paths, tmp_path, "train", planned.rows["train"], SIZE, columns, settings, Counting())  # type: ignore[arg-type]
    assert not bad
    assert max(seen) <= 8
    assert sum(seen) == planned.rows["train"].num_rows
    assert stamps.exists()


def test_rows_without_an_identity_of_their_own_are_kept(tmp_path: Path) -> None:
    """Replicates of a host are different arcs; only the same task in two selection sets is a duplicate."""
    rows = stamp_rows(10)
    copies = [{**row, "task_id": row["task_id"][::-1], "selection_set_id": "other"} for row in rows]
    assert _facts(_pack(tmp_path, rows + copies))["excluded"] == {"duplicate": 10}


def test_types_of_rows_survive(tmp_path: Path) -> None:
    packed = open_packed(_pack(tmp_path, stamp_rows(20)), "train")
    assert packed.rows.schema.field("theta_e_arcsec").type == pa.float64()
    assert packed.rows.schema.field("healpix_128").type == pa.int64()
