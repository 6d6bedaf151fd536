"""What reading stored files promises: every variant, layout and codec; positions decide splits; nothing is guessed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.injection.stored import (
    INVENTORY_SCHEMA,
    VARIANTS,
    compare_schema,
    describe_file,
    inventory,
    rows_at,
    stored_files,
)
from dark_halo_scope.injection.stored_config import StoredSettings, Variant
from stored_scene import stored_rows, variant_schema, write_stored


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return stored_rows("v3_color_relaxed", hosts=2)


def _settings(uri: Path, variant: Variant = "v3_color_relaxed") -> StoredSettings:
    return StoredSettings(uri=str(uri), variant=variant)


def _inventory(uri: Path, variant: Variant = "v3_color_relaxed", left_out: frozenset[str] = frozenset()) -> list[dict]:
    settings = _settings(uri, variant)
    tables = [
        table
        for number, file in enumerate(stored_files(str(uri), True))
        for table in inventory(file, number, settings, left_out)
    ]
    assert all(table.schema == INVENTORY_SCHEMA for table in tables)
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_of_every_variant_is_read_as_what_it_should_be(tmp_path: Path, variant: Variant) -> None:
    uri = write_stored(tmp_path, stored_rows(variant, hosts=1), variant)
    reports = [describe_file(file, variant) for file in stored_files(str(uri), True)]
    assert [report.differences for report in reports] == [()] * len(reports)
    assert sum(report.rows for report in reports) == len(_inventory(uri, variant))


@pytest.mark.parametrize(
    ("variant", "columns"),
    [
        ("v3_color_relaxed", 57),
        ("v4_sota", 53),
        ("v4_sota_moffat", 53),
        ("v5_cosmos_production", 56),
        ("cosmos_corrected", 57),
        ("v5_cosmos_paired", 57),
    ],
)
def test_a_variant_has_as_many_columns_as_were_recorded_of_it(variant: Variant, columns: int) -> None:
    assert len(variant_schema(variant)) == columns


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd"])
@pytest.mark.parametrize("layout", ["hive", "column"])
def test_layout_and_codec_change_nothing(tmp_path: Path, rows: list[dict], layout: str, codec: str) -> None:
    found = _inventory(write_stored(tmp_path, rows, "v3_color_relaxed", layout=layout, codec=codec))
    by_task = {row["task_id"]: row["region_split"] for row in rows}
    assert {row["task_id"]: row["stored_split"] for row in found} == by_task
    assert all(row["reason"] is None for row in found)


def test_what_a_file_lacks_or_has_besides_is_said(tmp_path: Path, rows: list[dict]) -> None:
    def change(table: pa.Table) -> pa.Table:
        narrow = table.set_column(
            table.schema.get_field_index("psfdepth_r"), "psfdepth_r", table["psfdepth_r"].cast(pa.float32())
        )
        return narrow.drop_columns(["psf_bin"]).append_column("note", pa.array(["x"] * table.num_rows))

    uri = write_stored(tmp_path, rows, "v3_color_relaxed", change=change, optional=False)
    found = describe_file(stored_files(str(uri), True)[0], "v3_color_relaxed").differences
    assert found == ("lacks psf_bin", "has psfdepth_r as float, not double", "has note (string) besides")


def test_a_dataset_of_another_variant_shows_in_the_differences(tmp_path: Path) -> None:
    uri = write_stored(tmp_path, stored_rows("v5_cosmos_paired", hosts=1), "v5_cosmos_paired")
    found = describe_file(stored_files(str(uri), True)[0], "v5_cosmos_production").differences
    assert found == ("has ctrl_stamp_npz (binary) besides",)


@pytest.mark.parametrize("column", ["task_id", "stamp_npz", "cutout_ok"])
def test_a_file_without_a_column_that_is_needed_is_refused(tmp_path: Path, rows: list[dict], column: str) -> None:
    uri = write_stored(tmp_path, rows, "v3_color_relaxed", change=lambda table: table.drop_columns([column]))
    with pytest.raises(BadInputError, match=f"lacks the columns {column}"):
        describe_file(stored_files(str(uri), True)[0], "v3_color_relaxed")


def test_a_number_in_place_of_text_is_refused(tmp_path: Path) -> None:
    file = stored_files(str(write_stored(tmp_path, stored_rows("v4_sota", hosts=1), "v4_sota")), True)[0]
    schema = variant_schema("v4_sota")
    wrong = schema.set(schema.get_field_index("config_id"), pa.field("config_id", pa.int64()))
    with pytest.raises(BadInputError, match="config_id as int64, which is no string"):
        compare_schema(wrong, "v4_sota", file)


def test_positions_of_single_precision_are_refused_and_float64_filled_from_them_is_counted(
    tmp_path: Path, rows: list[dict]
) -> None:
    """A float32 right ascension is off by up to 0.1 arcsec: half a pixel, and another cell at a border."""

    def narrow(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index("ra"), "ra", table["ra"].cast(pa.float32()))

    uri = write_stored(tmp_path / "narrow", rows, "v3_color_relaxed", change=narrow)
    with pytest.raises(BadInputError, match="single precision"):
        describe_file(stored_files(str(uri), True)[0], "v3_color_relaxed")
    rounded = [row | {name: float(np.float32(row[name])) for name in ("ra", "dec")} for row in rows]
    found = _inventory(write_stored(tmp_path / "rounded", rounded, "v3_color_relaxed"))
    assert all(row["single_precision"] for row in found)
    assert not any(row["single_precision"] for row in _inventory(write_stored(tmp_path, rows, "v3_color_relaxed")))


def test_tasks_that_were_moved_to_another_split_return_to_that_of_their_cell(tmp_path: Path, rows: list[dict]) -> None:
    def relabelled(table: pa.Table) -> pa.Table:
        return table.append_column("original_split", pa.array(["val"] * table.num_rows))

    moved = [row | {"region_split": "train"} for row in rows]
    found = _inventory(write_stored(tmp_path, moved, "v3_color_relaxed", change=relabelled))
    cells = healpix_cell([row["ra"] for row in found], [row["dec"] for row in found])
    assert [row["healpix_128"] for row in found] == cells.tolist()
    assert [row["split"] for row in found] == split_of_cells(cells).tolist()
    assert {row["split"] for row in found} == {"train", "val", "test"}
    assert {(row["stored_split"], row["original_split"]) for row in found} == {("train", "val")}


def test_a_split_that_a_randomised_hash_chose_does_not_survive(tmp_path: Path, rows: list[dict]) -> None:
    """Rows of one cell come out in one split, whatever each was in."""
    found = _inventory(write_stored(tmp_path, rows, "v3_color_relaxed"))
    for cell in {row["healpix_128"] for row in found}:
        here = [row for row in found if row["healpix_128"] == cell]
        assert len({row["stored_split"] for row in here}) > 1
        assert len({row["split"] for row in here}) == 1


def test_rows_that_cannot_be_told_apart_or_placed_say_why(tmp_path: Path, rows: list[dict]) -> None:
    changes: list[tuple[dict, str]] = [
        ({"task_id": None}, "no task_id"),
        ({"brickname": "../etc"}, "no brick name"),
        ({"ra": 361.0}, "no position on the sky"),
        ({"dec": float("nan")}, "no position on the sky"),
        ({"replicate": None}, "no configuration or replicate"),
        ({"bandset": "r"}, "not in g, r and z"),
    ]
    broken = [dict(row) | {"region_split": "train"} for row in rows]
    for row, (change, _) in zip(broken, changes, strict=False):
        row |= change
    left_out = broken[len(changes)]["brickname"]
    found = _inventory(write_stored(tmp_path, broken, "v3_color_relaxed"), left_out=frozenset([left_out]))
    reasons = [row["reason"] for row in found]
    for _, reason in changes:
        assert reason in reasons
    assert reasons.count("no position on the sky") == 2
    here = [row for row in found if row["brickname"] == left_out]
    assert {row["reason"] for row in here} >= {"brick left out"}
    assert all(row["reason"] for row in here)


def test_a_place_leads_back_to_its_row_and_no_other(tmp_path: Path, rows: list[dict]) -> None:
    uri = write_stored(tmp_path, rows, "v3_color_relaxed")
    files = stored_files(str(uri), True)
    found = _inventory(uri)
    for number, file in enumerate(files):
        here = [row for row in found if row["file"] == number][::2]
        places = [(row["row_group"], row["row"]) for row in here]
        tasks = [task for table, _ in rows_at(file, places, 2) for task in table["task_id"].to_pylist()]
        numbers = [i for _, order in rows_at(file, places, 2) for i in order.tolist()]
        assert tasks == [row["task_id"] for row in here]
        assert numbers == list(range(len(here)))


def test_no_more_rows_are_held_at_once_than_asked_for(tmp_path: Path, rows: list[dict]) -> None:
    file = stored_files(str(write_stored(tmp_path, rows, "v3_color_relaxed")), True)[0]
    count = pq.ParquetFile(file.uri).metadata.num_rows
    everything = [(row // 5, row % 5) for row in range(count)]
    assert max(table.num_rows for table, _ in rows_at(file, everything, 2)) <= 2


def test_files_of_a_job_that_did_not_finish_are_refused(tmp_path: Path, rows: list[dict]) -> None:
    uri = write_stored(tmp_path, rows, "v3_color_relaxed")
    complete = stored_files(str(uri), True)
    (success,) = uri.rglob("_SUCCESS")
    (success.parent / "_temporary").mkdir()
    (success.parent / "_temporary" / "part.parquet").write_bytes(b"half")
    assert stored_files(str(uri), True) == complete
    success.unlink()
    (success.parent / "empty").mkdir()
    with pytest.raises(BadInputError, match="no _SUCCESS"):
        stored_files(str(uri), True)
    assert stored_files(str(uri), False) == complete
    with pytest.raises(BadInputError, match="no Parquet file"):
        stored_files(str(success.parent / "empty"), False)


def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, rows: list[dict]) -> None:
    file = stored_files(str(write_stored(tmp_path, rows, "v3_color_relaxed")), True)[0]
    path = Path(file.uri)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptDataError, match=path.name):
        describe_file(file, "v3_color_relaxed")
