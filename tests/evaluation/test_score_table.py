"""Scores become columns of numbers: hosts counted once, repeated controls known, unknown things unknown."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest
from dark_halo_scope.evaluation import score_table
from dark_halo_scope.evaluation.score_table import CONTROL, galaxy_facts, read_scores

from .score_rows import negative_rows, pair_rows, write_scores


def written(tmp_path: Path, rows: pa.Table) -> Manifest:
    return load_manifest(write_scores(tmp_path / "scores.json", rows))


def changed(rows: pa.Table, name: str, values: object) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pa.array(values))


def test_every_row_keeps_its_score_kind_and_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_table, "_BATCH_ROWS", 37)
    rows = pair_rows(40)
    table = read_scores(written(tmp_path, rows), ["psfsize_r", "nobs_z"], ["control_kind"])
    np.testing.assert_array_equal(table.score, rows["score"].to_numpy())
    assert [score_table.KINDS[code] for code in table.kind] == rows["kind"].to_pylist()
    np.testing.assert_allclose(table.numbers["psfsize_r"], rows["psfsize_r"].to_numpy(), rtol=1e-6)
    assert set(table.numbers) == {"psfsize_r"}
    assert (table.labels["control_kind"][0] == -1).all()


def test_a_host_is_a_brick_and_an_object_id_and_its_control_counts_once(tmp_path: Path) -> None:
    rows = pair_rows(150, per_host=3)
    table = read_scores(written(tmp_path, rows))
    assert len(np.unique(table.host)) == 150
    pairs = list(zip(rows["brickname"].to_pylist(), rows["objid"].to_pylist(), strict=True))
    assert len(set(zip(table.host, pairs, strict=True))) == 150
    controls = table.kind == CONTROL
    assert (~table.repeated[controls]).sum() == 150
    assert not table.repeated[~controls].any()
    np.testing.assert_array_equal(table.repeated[controls], np.tile([False, True, True], 150))


def test_galaxies_without_object_ids_are_told_apart_by_position(tmp_path: Path) -> None:
    rows = changed(pair_rows(50), "objid", pa.nulls(300, pa.int64()))
    table = read_scores(written(tmp_path, rows))
    assert len(np.unique(table.host)) == 50
    assert (table.galaxy < 0).all()


def test_facts_of_galaxies_are_found_by_brick_and_object_id(tmp_path: Path) -> None:
    rows = pa.concat_tables([pair_rows(150), negative_rows(20)])
    table = read_scores(written(tmp_path, rows))
    catalogue = pa.table(
        {
            # The second brick's objects have the same ids as the first one's.
            "brickname": ["0101m051"] * 50 + ["0101m050"] * 100 + ["9999p000"] * 5,
            "objid": [*range(50), *range(100), *range(5)],
            "nobs_z": np.concatenate([np.full(50, 7), np.arange(100), np.full(5, 99)]).astype(np.int32),
        }
    )
    with attempt(tmp_path / "parent.json", "parent", "dark_halo_scope.evaluation.scores", {}, []) as work:
        for index in range(2):
            pq.write_table(catalogue.slice(80 * index, 80), work.prefix / f"parent-{index}.parquet")
        work.publish()
    found = galaxy_facts(table, load_manifest(tmp_path / "parent.json"), ["nobs_z"])["nobs_z"]
    expected = [
        (7 if brick == "0101m051" else objid) if objid < 100 else np.nan
        for brick, objid in zip(rows["brickname"].to_pylist(), rows["objid"].to_pylist(), strict=True)
    ]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_scores_that_are_no_probabilities_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    rows = pair_rows(5)
    for name, values, message in (
        ("score", np.full(30, np.nan), "not between 0 and 1"),
        ("kind", ["galaxy"] * 30, "none of positive"),
    ):
        with pytest.raises(CorruptDataError, match=message):
            read_scores(written(tmp_path, changed(rows, name, values)))
    with pytest.raises(BadInputError, match="holds no scores"):
        read_scores(written(tmp_path, rows.slice(0, 0)))
