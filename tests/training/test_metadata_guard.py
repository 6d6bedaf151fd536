"""Metadata that know the label never reach a network."""

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.evaluation.metrics import auc
from dark_halo_scope.training.metadata_guard import refuse_leaks

N = 400
LABELS = np.repeat([1.0, 0.0], N // 2)
RNG = np.random.default_rng(3)
ROWS = pa.table(
    {
        "psfsize_r": RNG.normal(1.3, 0.1, N),
        "psfdepth_r": RNG.normal(24, 0.3, N),
        # Positives were taken from deeper bricks.
        "galdepth_r": RNG.normal(24, 0.3, N) + 0.3 * LABELS,
        "nobs_r": RNG.normal(5, 1, N) - 2.0 * LABELS,
        "arc_snr": RNG.normal(0, 1, N),
        "z_phot": np.where(np.arange(N) == 7, np.nan, 0.4),
    }
)


def test_observing_conditions_that_do_not_depend_on_the_class_pass() -> None:
    refuse_leaks(("psfsize_r", "psfdepth_r"), ROWS, LABELS, 0.6)
    refuse_leaks((), ROWS, LABELS, 0.6)


@pytest.mark.parametrize("column", ["arc_snr", "src_dmag", "is_control", "lensed_mag_r", "theta_e_arcsec"])
def test_a_known_leak_is_refused_by_name_whatever_it_holds(column: str) -> None:
    with pytest.raises(ConfigError, match=rf"{column} \(.+\) would leak the label"):
        refuse_leaks(("psfsize_r", column), ROWS, LABELS, 1.0)


@pytest.mark.parametrize(("column", "low", "high"), [("galdepth_r", 0.7, 0.8), ("nobs_r", 0.0, 0.15)])
def test_a_column_that_tells_the_classes_apart_in_either_direction_is_refused_with_its_auc(
    column: str, low: float, high: float
) -> None:
    with pytest.raises(ConfigError, match=column) as refused:
        refuse_leaks(("psfsize_r", column), ROWS, LABELS, 0.6)
    assert low < float(str(refused.value).split("AUC ")[1].split(" ")[0]) < high
    assert "psfsize_r" not in str(refused.value)
    refuse_leaks((column,), ROWS, LABELS, 1.0)


def test_what_chance_does_to_a_few_images_is_no_leak() -> None:
    few = pa.table({"psfsize_r": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]})
    labels = np.array([0, 1, 0, 0, 1, 0, 1, 1, 0, 1.0])
    assert auc(labels.astype(int), few["psfsize_r"].to_numpy()) > 0.6
    refuse_leaks(("psfsize_r",), few, labels, 0.6)


def test_one_class_alone_has_no_auc_and_only_names_are_judged() -> None:
    refuse_leaks(("galdepth_r",), ROWS, np.ones(N), 0.6)
    with pytest.raises(ConfigError, match="arc_snr"):
        refuse_leaks(("arc_snr",), ROWS, np.ones(N), 0.6)


def test_missing_and_unusable_columns_are_named() -> None:
    with pytest.raises(BadInputError, match="galdepth_g"):
        refuse_leaks(("galdepth_g",), ROWS, LABELS, 0.6)
    with pytest.raises(BadInputError, match="row 7"):
        refuse_leaks(("z_phot",), ROWS, LABELS, 0.6)
