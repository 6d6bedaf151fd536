"""What packing promises: row i describes image i, nothing bad gets in, and what stays out is counted."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.images.codec import decode_stamp, encode_stamp
from dark_halo_scope.images.config import PackSettings
from dark_halo_scope.images.pack import _write_rows, main, pack, plan
from dark_halo_scope.images.packed import has_pairs, image_batches, open_packed
from dark_halo_scope.injection.schema import hard_negative_column, stamp_schema
from stamp_scene import SIZE, as_control, stamp_rows, write_negatives, write_stamps


def _pack(
    folder: Path,
    rows: list[dict],
    settings: dict | None = None,
    quality: dict | None = None,
    negatives: list[dict] | None = None,
    **kwargs,
) -> Path:
    stamps, manifest = write_stamps(folder, rows, **kwargs)
    verdict = {"verdict": "accepted", "reasons": [], "stamps_sha256": manifest.sha256}
    verdict["negatives_sha256"] = []
    more = []
    if negatives is not None:
        path, other = write_negatives(folder, negatives)
        more = ["--negatives", str(path)]
        verdict["negatives_sha256"] = [other.sha256]
    (folder / "quality.json").write_text(json.dumps(verdict if quality is None else quality))
    output = folder / "packed.json"
    arguments = ["--stamps", str(stamps), "--quality", str(folder / "quality.json"), "--output", str(output)]
    main([*arguments, *more, "--settings", json.dumps(settings or {})])
    return output


ROW_SCHEMA = pa.schema([pa.field(f.name, f.type) for f in stamp_schema() if not f.name.endswith("_npz")])
BLOBS = ["stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz"]


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
    as_control(rows[1])
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
    }
    manifest = load_manifest(output)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (60, 53, 7)
    assert sum(manifest.facts["splits"].values()) == 52
    assert manifest.facts["negative_kinds"] == {"unpaired": 1}
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
    """No more rows of blobs are read at once than `batch_rows`."""
    write_stamps(tmp_path, stamp_rows(60), files=1)
    paths = sorted((tmp_path / "stamps").rglob("*.parquet"))
    sizes: list[int] = []
    read = pq.ParquetFile.iter_batches

    def counting(file: pq.ParquetFile, batch_size: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in read(file, batch_size, columns=columns):
            if any(name.endswith("_npz") for name in columns):
                sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    pack(paths, tmp_path, PackSettings(batch_rows=8))
    assert max(sizes) == 8
    assert sum(sizes) >= 60


@given(at_once=st.integers(1, 70), files=st.integers(1, 5))
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_same_however_few_are_held_at_once(tmp_path: Path, at_once: int, files: int) -> None:
    with TemporaryDirectory(dir=tmp_path) as name:
        folder = Path(name)
        rows = [{**row, "split": "train"} for row in stamp_rows(40)]
        for row in rows[::3]:
            as_control(row)
        write_stamps(folder, rows, files=files)
        paths = sorted((folder / "stamps").rglob("*.parquet"))
        planned = plan(paths, BLOBS, at_once=at_once)
        _write_rows(paths, planned.pairs["train"], folder / "rows.parquet", ROW_SCHEMA, at_once)
        _write_rows(paths, planned.negatives["train"], folder / "negatives.parquet", ROW_SCHEMA, at_once)
        found = [pq.read_table(folder / f"{kind}.parquet").to_pylist() for kind in ("rows", "negatives")]
        assert not [path for path in folder.iterdir() if path.name.startswith("rows-")]
    for kind, control in zip(found, (0, 1), strict=True):
        expected = sorted((row for row in rows if row["is_control"] == control), key=lambda row: row["task_id"])
        assert [row["task_id"] for row in kind] == [row["task_id"] for row in expected]
        assert [row["ra"] for row in kind] == [row["ra"] for row in expected]


def test_unpaired_controls_and_confusers_are_negatives_with_their_kind(tmp_path: Path) -> None:
    rows = stamp_rows(90)
    confusers = [{**row, "control_kind": "ring_proxy"} for row in map(as_control, stamp_rows(30, seed=9))]
    for row in rows[::3]:
        as_control(row)
    output = _pack(tmp_path, rows, negatives=confusers)
    facts = _facts(output)
    # Replicates of a host's control are the same image: stamp_rows puts two rows on each host.
    controls = {(row["ra"], row["split"]) for row in rows[::3]}
    others = {(row["ra"], row["split"]) for row in confusers}
    assert facts["negative_kinds"] == {"ring_proxy": len(others), "unpaired": len(controls)}
    by_task = {row["task_id"]: row for row in rows + confusers}
    for split in ("train", "val", "test"):
        packed = open_packed(output, split)
        assert len(packed.negative) == packed.negative_rows.num_rows == facts["negatives"][split]
        assert len(packed.negative) == sum(name == split for _, name in controls | others)
        assert "is_control" in packed.rows.column_names
        assert set(packed.rows["is_control"].to_pylist()) == {0}
        for image, row in zip(packed.negative, packed.negative_rows.to_pylist(), strict=True):
            np.testing.assert_array_equal(image, decode_stamp(by_task[row["task_id"]]["stamp_npz"]).astype(np.float16))
            assert row["control_kind"] == by_task[row["task_id"]]["control_kind"]


def test_a_dataset_of_pairs_alone_has_an_empty_place_for_negatives(tmp_path: Path) -> None:
    packed = open_packed(_pack(tmp_path, stamp_rows(30)), "train")
    assert packed.negative.shape == (0, 3, SIZE, SIZE)
    assert packed.negative_rows.num_rows == 0
    assert packed.negative_rows.schema == packed.rows.schema


def test_negatives_that_the_check_did_not_see_are_not_packed(tmp_path: Path) -> None:
    rows = stamp_rows(30)
    _, manifest = write_stamps(tmp_path, rows)
    seen = {"verdict": "accepted", "stamps_sha256": manifest.sha256, "negatives_sha256": []}
    with pytest.raises(BadInputError, match="other negatives"):
        _pack(tmp_path, rows, quality=seen, negatives=[as_control(row) for row in stamp_rows(4, seed=9)])


def test_a_damaged_stamp_leaves_a_row_out_and_no_neighbour_takes_its_place(tmp_path: Path) -> None:
    """A loader that answers a failed read with the next row trains on rows twice and says nothing."""
    rows = stamp_rows(60)
    clean = {row["task_id"]: decode_stamp(row["stamp_npz"]).astype(np.float16) for row in rows}
    damaged = {row["task_id"] for row in rows[10:20]}
    for row in rows[10:20]:
        row["stamp_npz"] = row["stamp_npz"][:-40]
    output = _pack(tmp_path, rows)
    packed = [open_packed(output, split) for split in ("train", "val", "test")]
    tasks = [task for split in packed for task in split.rows["task_id"].to_pylist()]
    assert len(tasks) == len(set(tasks)) == 50
    assert not damaged & set(tasks)
    for split in packed:
        for task, image in zip(split.rows["task_id"].to_pylist(), split.positive, strict=True):
            np.testing.assert_array_equal(image, clean[task])
    assert _facts(output)["excluded"] == {"stamp not readable": 10}


def test_a_good_row_is_no_duplicate_of_a_failed_one(tmp_path: Path) -> None:
    """The same task in two selection sets, cut out in one of them alone."""
    rows = stamp_rows(20)
    failed = {"cutout_ok": 0, "cutout_reason": "coadds missing", "stamp_npz": None}
    copies = [{**row, "task_id": "0" + row["task_id"][1:], "selection_set_id": "other", **failed} for row in rows]
    assert _facts(_pack(tmp_path, rows + copies))["excluded"] == {"cutout failed": 20}


def test_a_task_in_two_selection_sets_is_packed_once(tmp_path: Path) -> None:
    """Replicates of a host are different arcs, and stay."""
    rows = stamp_rows(10)
    copies = [{**row, "task_id": row["task_id"][::-1], "selection_set_id": "other"} for row in rows]
    assert _facts(_pack(tmp_path, rows + copies))["excluded"] == {"duplicate": 10}


def test_types_of_rows_survive(tmp_path: Path) -> None:
    packed = open_packed(_pack(tmp_path, stamp_rows(20)), "train")
    assert packed.rows.schema.field("theta_e_arcsec").type == pa.float64()
    assert packed.rows.schema.field("healpix_128").type == pa.int64()


def _sky_rows(count: int = 40) -> list[dict]:
    """Lenses of the sky and galaxies without arcs among them: one image a row."""
    rows = [row | {"ctrl_stamp_npz": None, "hardneg_stamp_npz": None} for row in stamp_rows(count)]
    return [as_control(row | {"ctrl_stamp_npz": row["stamp_npz"]}) if i % 4 else row for i, row in enumerate(rows)]


def test_lenses_of_the_sky_are_packed_without_controls_or_hard_negatives(tmp_path: Path) -> None:
    rows = _sky_rows()
    by_task = {row["task_id"]: row for row in rows}
    output = _pack(tmp_path, rows, facts={"pairs": False}, change=lambda table: table.drop_columns(BLOBS[1:]))
    manifest = load_manifest(output)
    assert manifest.facts["kinds"] == ["positive"]
    assert not has_pairs(manifest)
    assert not list(Path(manifest.uri).rglob("control.npy"))
    total = Counter()
    for split in ("train", "val", "test"):
        packed = open_packed(output, split)
        assert not packed.pairs
        assert packed.control.shape == packed.hard_negative.shape == (0, 3, SIZE, SIZE)
        assert packed.extra == {}
        for rows_of, images in ((packed.rows, packed.positive), (packed.negative_rows, packed.negative)):
            assert len(images) == rows_of.num_rows
            for row, image in zip(rows_of.to_pylist(), images, strict=True):
                expected = decode_stamp(by_task[row["task_id"]]["stamp_npz"]).astype(np.float16)
                np.testing.assert_array_equal(image, expected)
        total.update(positive=len(packed), negative=packed.negative_rows.num_rows)
    assert total == {"positive": 10, "negative": 20}, "replicates of a galaxy without an arc are one image"
    with pytest.raises(BadInputError, match="no images of the kind 'control'"):
        next(image_batches(manifest, "train", ["control"], 8))


def test_hard_negatives_cannot_be_asked_of_lenses_of_the_sky(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="extra_hard_negatives"):
        _pack(tmp_path, _sky_rows(), {"extra_hard_negatives": ["pixels"]}, facts={"pairs": False})
