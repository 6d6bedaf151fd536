"""Scores keep identity and strata of every image, and account for those left out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.evaluation.scores import score_batches, write_scores

from . import toys


def scored(split: toys.ToySplit, tmp_path: Path, predict: object = toys.sees_arcs, **kwargs: object) -> pa.Table:
    write_scores(score_batches(predict, toys.batches(split, **kwargs), "test"), tmp_path)
    return pq.read_table(tmp_path / "scores.parquet")


def test_every_image_of_every_kind_is_one_row_with_identity_and_strata(tmp_path: Path) -> None:
    split = toys.make_split(30)
    table = scored(split, tmp_path, batch=7)
    assert table.num_rows == 90
    assert {"task_id", "ra", "dec", "brickname", "split", "label", "kind", "logit", "score"} <= set(table.column_names)
    assert {"theta_e_arcsec", "psfsize_r", "theta_e_over_psf", "arc_snr", "healpix_128"} <= set(table.column_names)
    for kind in ("positive", "control", "hard_negative"):
        rows = table.filter(pa.compute.equal(table["kind"], kind))
        assert rows["task_id"].to_pylist() == split.rows["task_id"].to_pylist()
        assert rows["packed_row"].to_pylist() == list(range(30))
        expected = toys.sees_arcs(getattr(split, kind).astype(np.float32), split.rows)
        np.testing.assert_allclose(rows["logit"].to_numpy(), expected, atol=1e-4)
        np.testing.assert_array_equal(rows["score"].to_numpy(), expit(rows["logit"].to_numpy()))
        assert set(rows["label"].to_pylist()) == {int(kind == "positive")}
    np.testing.assert_allclose(table["theta_e_over_psf"].to_numpy(), toys.THETA_E / toys.PSFSIZE)


def test_the_batch_size_does_not_change_the_rows(tmp_path: Path) -> None:
    split = toys.make_split(30)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    small, large = scored(split, tmp_path / "a", batch=4), scored(split, tmp_path / "b", batch=100)
    assert small.drop_columns(["logit", "score"]).equals(large.drop_columns(["logit", "score"]))


def test_bad_stamps_are_quarantined_with_the_reason_and_never_scored(tmp_path: Path) -> None:
    split = toys.make_split(20)
    split.control[3] = np.nan
    ok = np.ones(20, dtype=np.int32)
    ok[5] = 0
    split.rows = split.rows.set_column(split.rows.column_names.index("cutout_ok"), "cutout_ok", pa.array(ok))

    def strict(images: np.ndarray, rows: pa.Table) -> np.ndarray:
        assert np.isfinite(images).all()
        assert len(images) == rows.num_rows
        return toys.sees_arcs(images, rows)

    count, left_out, _ = write_scores(score_batches(strict, toys.batches(split, 8), "test"), tmp_path)
    assert (count, left_out) == (56, 4)
    quarantined = pq.read_table(tmp_path / "quarantine/scores.parquet")
    reasons = set(zip(*(quarantined[name].to_pylist() for name in ("task_id", "quarantine_reason")), strict=True))
    assert reasons == {("task00003", "pixels not finite"), ("task00005", "cutout not ok")}


def test_a_logit_that_is_not_finite_is_an_error_that_names_the_image(tmp_path: Path) -> None:
    def broken(images: np.ndarray, rows: pa.Table) -> np.ndarray:
        logits = toys.sees_arcs(images, rows)
        logits[[task == "task00004" for task in rows["task_id"].to_pylist()]] = np.nan
        return logits

    with pytest.raises(CorruptDataError, match="positive task00004 is not finite"):
        scored(toys.make_split(10), tmp_path, broken)
