"""What an epoch on real images is worth: the plan's operating points, at the split's own prevalence."""

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.evaluation import metrics
from dark_halo_scope.training.image_metrics import image_metrics

RNG = np.random.default_rng(3)
POSITIVE, NEGATIVE = RNG.normal(1.5, 1, 60), RNG.normal(-1, 1, 400)
ROWS = pa.table({"tier": ["A"] * 20 + ["B"] * 40})
LOGITS = {"positive": POSITIVE, "negative": NEGATIVE}


def test_operating_points_are_those_of_the_evaluation_where_all_was_scored() -> None:
    measured = image_metrics(LOGITS, ROWS, (60, 400), 15)
    precision = metrics.precision_at_recall(POSITIVE, NEGATIVE, 0.9).precision.value
    point = metrics.recall_at_precision(POSITIVE, NEGATIVE, 0.9)
    assert point is not None
    assert measured["val_precision_at_recall_0.9"] == pytest.approx(precision)
    assert measured["val_recall_at_precision_0.9"] == pytest.approx(point.tpr.value)


def test_a_part_of_the_negatives_counts_for_all_of_them() -> None:
    few = {"positive": POSITIVE, "negative": NEGATIVE[::4]}
    often = {"positive": POSITIVE, "negative": np.repeat(NEGATIVE[::4], 4)}
    part, whole = image_metrics(few, ROWS, (60, 400), 15), image_metrics(often, ROWS, (60, 400), 15)
    assert part == pytest.approx(whole)


def test_tiers_are_measured_apart() -> None:
    measured = image_metrics(
        {"positive": np.r_[np.full(20, 9.0), np.full(40, -9.0)], "negative": NEGATIVE}, ROWS, (60, 400), 15
    )
    assert (measured["val_auc_tier_a"], measured["val_auc_tier_b"]) == (1.0, 0.0)
    assert (measured["n_tier_a"], measured["n_tier_b"]) == (20, 40)


def test_a_tier_without_lenses_is_not_measured() -> None:
    measured = image_metrics(LOGITS, pa.table({"tier": ["B"] * 60}), (60, 400), 15)
    assert measured["val_auc_tier_a"] is None
    assert measured["n_tier_a"] == 0
    assert image_metrics(LOGITS, pa.table({"ra": np.zeros(60)}), (60, 400), 15)["val_auc_tier_b"] is None


def test_a_constant_probability_has_the_distance_from_the_share_of_lenses() -> None:
    constant = {"positive": np.zeros(60), "negative": np.zeros(400)}
    measured = image_metrics(constant, ROWS, (60, 400), 15)
    assert measured["val_ece"] == pytest.approx(0.5 - 60 / 460)
    assert measured["val_brier"] == pytest.approx(0.25)
    assert measured["val_recall_at_precision_0.9"] == 0
    assert measured["prevalence"] == pytest.approx(60 / 460)


def test_where_no_probability_is_above_a_tenth_its_calibration_there_is_not_measured() -> None:
    low = {"positive": POSITIVE - 20, "negative": NEGATIVE - 20}
    assert image_metrics(low, ROWS, (60, 400), 15)["val_ece_above_0.1"] is None
