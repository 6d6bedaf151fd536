"""What the gates take from the packed rows."""

import numpy as np
import pyarrow as pa

from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.hybrids import annulus_from_positive
from dark_halo_scope.evaluation.pairs import lens_centres, score_pairs
from dark_halo_scope.images.packed import PackedSplit


def test_rows_that_do_not_say_where_the_lens_is_have_it_at_the_centre() -> None:
    assert lens_centres(pa.table({"ra": [1.0]})) is None


def test_the_annulus_lies_about_the_lens() -> None:
    """A lens a quarter of an arcsecond right of the stamp's centre has its annulus there too."""
    offset = 0.26
    rows = pa.table(
        {
            "task_id": ["a", "b"],
            "theta_e_arcsec": [1.5, 1.5],
            "psfsize_r": [1.0, 1.0],
            "brickname": ["b", "b"],
            "objid": [1, 2],
            "host_offset_x_arcsec": [0.0, offset],
            "host_offset_y_arcsec": [0.0, 0.0],
        }
    )
    positive, control = np.ones((2, 3, 64, 64), np.float16), np.zeros((2, 3, 64, 64), np.float16)
    column = (np.arange(64) - 31.5) * 0.262

    def mean_column(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        weight = images[:, 0].sum(axis=1)
        return (weight * column).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)

    split = PackedSplit(positive, control, control, rows, negative=control[:0], negative_rows=rows[:0])
    scored = score_pairs(mean_column, split, {"G3": annulus_from_positive}, GateSettings(), np.random.default_rng(0))
    np.testing.assert_allclose(scored.logits["G3"], [0.0, offset], atol=0.03)


def test_every_hybrid_comes_with_its_own_hosts_control() -> None:
    rng = np.random.default_rng(1)
    rows = pa.table(
        {
            "theta_e_arcsec": [1.5] * 5,
            "psfsize_r": [1.0, 1.0, -1.0, 1.0, 1.0],  # the third cannot be measured
            "brickname": ["b"] * 5,
            "objid": range(5),
        }
    )
    positive, control, hard = rng.normal(0, 1, (3, 5, 3, 16, 16)).astype(np.float16)
    split = PackedSplit(positive, control, hard, rows, negative=control[:0], negative_rows=rows[:0])

    def difference(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        assert controls is not None
        return (images - controls).sum(axis=(1, 2, 3))

    settings = GateSettings.model_validate({"batch_pairs": 2})
    scored = score_pairs(difference, split, {"G3": annulus_from_positive}, settings, np.random.default_rng(0))
    assert not scored.logits["control"].any()
    kept = [0, 1, 3, 4]
    expected = (hard[kept].astype(np.float32) - control[kept]).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(scored.logits["hard_negative"], expected, rtol=1e-4, atol=1e-3)
