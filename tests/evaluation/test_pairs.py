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

    def mean_column(images: np.ndarray, rows: pa.Table) -> np.ndarray:
        weight = images[:, 0].sum(axis=1)
        return (weight * column).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)

    split = PackedSplit(positive, control, control, rows, negative=control[:0], negative_rows=rows[:0])
    scored = score_pairs(mean_column, split, {"G3": annulus_from_positive}, GateSettings(), np.random.default_rng(0))
    np.testing.assert_allclose(scored.logits["G3"], [0.0, offset], atol=0.03)
