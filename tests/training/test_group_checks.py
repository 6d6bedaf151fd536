"""Checks every ten epochs: each fails for what it is there to find, and says where chance hides it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import logit

from dark_halo_scope.training.config import DiagnosticSettings
from dark_halo_scope.training.group_checks import Scored, group_checks, reliability

SETTINGS = DiagnosticSettings()
MIX = {"positive": 0.5, "control": 0.5, "hard_negative": 0.0, "negative": 0.0}
N = 2000


def scored(seed: int = 1, n: int = N, **changes: Any) -> dict[str, Any]:
    """Pairs of ten bricks whose scores know nothing but the label."""
    rng = np.random.default_rng(seed)
    rows = {
        "brickname": [f"{index % 10:04d}m002" for index in range(n)],
        "theta_e_arcsec": rng.uniform(0.5, 2.5, n),
        "arc_snr": np.full(n, 20.0),
    }
    # Mean = half the variance: these logits are calibrated.
    logits = {"positive": rng.normal(2, 2, n), "control": rng.normal(-2, 2, n)}
    return {"logits": logits, "rows": rows, "mix": MIX, **changes}


def check(name: str, case: dict[str, Any], settings: DiagnosticSettings = SETTINGS, pool: Any = None) -> Any:
    rows = pa.table(case["rows"])
    parts = Scored.of(case["logits"], rows, rows.slice(0, 0) if pool is None else pa.table(pool), case["mix"])
    (found,) = [record for record in group_checks(parts, settings) if record["name"] == name]
    return found


def test_a_network_that_knows_the_label_alone_passes() -> None:
    case = scored()
    for name in ("brick_auc_std", "theta_e_auc", "fp_fn_ratio", "ece"):
        assert check(name, case)["passed"] is True, name


@pytest.mark.parametrize(("shift", "passed"), [(-2.0, True), (2.0, False)])
def test_lenses_that_nobody_can_see_must_not_be_found(shift: float, passed: bool) -> None:
    case = scored()
    case["rows"]["arc_snr"][:50] = 0
    case["logits"]["positive"][:50] = shift
    record = check("arc_snr_0_accuracy", case)
    assert (record["passed"], record["n"], record["value"]) == (passed, 50, float(shift > 0))


def test_too_few_invisible_arcs_are_no_pass() -> None:
    case = scored()
    assert check("arc_snr_0_accuracy", case)["reason"] == "0 arcs of arc_snr 0, fewer than 20"
    del case["rows"]["arc_snr"]
    assert check("arc_snr_0_accuracy", case)["passed"] is None


def test_a_brick_that_the_network_fails_on_is_found() -> None:
    case = scored()
    bad = np.arange(N) % 10 == 3
    case["logits"]["positive"][bad] -= 2.5
    record = check("brick_auc_std", case)
    assert record["passed"] is False
    assert record["n"] == 10


def test_bricks_of_a_handful_of_pairs_are_not_judged_by_their_luck() -> None:
    settings = SETTINGS.model_copy(update={"brick_pairs": 5})
    case = scored(n=60)
    rng = np.random.default_rng(2)
    case["logits"] = {"positive": rng.normal(0.3, 1, 60), "control": rng.normal(-0.3, 1, 60)}
    record = check("brick_auc_std", case, settings)
    assert record["passed"] is None
    assert record["by_chance"] > 0.05
    assert "by themselves" in record["reason"]
    assert "fewer than 2" in check("brick_auc_std", case)["reason"]


def test_the_spread_that_chance_makes_is_foreseen() -> None:
    spreads, foreseen = [], []
    for seed in range(20):
        case = scored(seed)
        rng = np.random.default_rng(seed)
        case["logits"] = {"positive": rng.normal(0.5, 1, N), "control": rng.normal(-0.5, 1, N)}
        record = check("brick_auc_std", case)
        spreads.append(record["value"])
        foreseen.append(record["by_chance"])
    assert np.sqrt(np.mean(np.square(spreads))) == pytest.approx(np.mean(foreseen), rel=0.15)


def test_an_auc_that_falls_with_theta_e_fails() -> None:
    case = scored()
    wide = case["rows"]["theta_e_arcsec"] > 1.5
    case["logits"]["positive"][wide] -= 1.5
    record = check("theta_e_auc", case)
    assert record["passed"] is False
    assert record["value"] < 0
    case["logits"]["positive"][wide] += 3.0
    assert check("theta_e_auc", case)["passed"] is True


def test_a_widest_bin_that_is_lower_by_chance_passes() -> None:
    case = scored()
    case["logits"]["positive"][case["rows"]["theta_e_arcsec"] >= 2.0] -= 0.15
    record = check("theta_e_auc", case)
    assert -0.03 < record["value"] < 0
    assert record["passed"] is True


def test_a_dip_between_sizes_fails_although_the_widest_is_best() -> None:
    case = scored()
    theta_e = case["rows"]["theta_e_arcsec"]
    case["logits"]["positive"][(theta_e >= 1.25) & (theta_e < 1.5)] -= 2.0
    case["logits"]["positive"][theta_e >= 2.0] += 2.0
    record = check("theta_e_auc", case)
    assert record["value"] > 0
    assert record["passed"] is False


def test_bins_of_theta_e_use_the_true_radius_and_say_when_there_are_too_few() -> None:
    case = scored()
    case["rows"]["theta_e_arcsec_true"] = np.full(N, 1.1)
    record = check("theta_e_auc", case)
    assert record["passed"] is None
    assert [entry["n"] for entry in record["bins"]] == [N]
    assert record["bins"][0]["low"] == 1.0


def test_the_ratio_of_errors_does_not_change_with_the_number_of_negatives() -> None:
    case = scored()
    positive = np.where(np.arange(N) < 200, -1.0, 1.0)  # 10% missed
    control = np.where(np.arange(N) < 400, 1.0, -1.0)  # 20% false alarms
    case["logits"] = {"positive": positive, "control": control}
    record = check("fp_fn_ratio", case)
    assert record["value"] == pytest.approx(2.0)
    assert record["confusion"] == {"tp": 1800, "fn": 200, "fp": 400, "tn": 1600}
    case["logits"] = {"positive": positive, "negative": np.repeat(control, 3)}
    case["mix"] = {**MIX, "control": 0.0, "negative": 0.5}
    pool = {"brickname": ["0001m002"] * 3 * N}
    assert check("fp_fn_ratio", case, pool=pool)["value"] == pytest.approx(2.0)
    assert check("fp_fn_ratio", case, pool=pool)["against"] == "negative"


@pytest.mark.parametrize(("missed", "alarms", "passed"), [(10, 100, False), (100, 10, False), (0, 100, False)])
def test_errors_of_one_kind_alone_fail(missed: int, alarms: int, passed: bool) -> None:
    case = scored()
    case["logits"] = {
        "positive": np.where(np.arange(N) < missed, -1.0, 1.0),
        "control": np.where(np.arange(N) < alarms, 1.0, -1.0),
    }
    assert check("fp_fn_ratio", case)["passed"] is passed


def test_a_handful_of_mistakes_has_no_ratio() -> None:
    case = scored()
    case["logits"] = {"positive": np.ones(N), "control": np.where(np.arange(N) < 19, 1.0, -1.0)}
    assert check("fp_fn_ratio", case)["passed"] is None


def test_probabilities_that_mean_what_they_say_are_calibrated_and_others_are_not() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.02, 0.98, 20000)
    lens = rng.random(20000) < p
    n = int(min(lens.sum(), (~lens).sum()))
    case = scored(n=n)
    case["logits"] = {"positive": logit(p[lens][:n]), "control": logit(p[~lens][:n])}
    good = check("ece", case)
    assert good["passed"] is True
    assert good["value"] < 0.02
    # Pushed to the ends: 0.98 becomes 0.9999.
    case["logits"] = {name: 3 * values for name, values in case["logits"].items()}
    bad = check("ece", case)
    assert bad["passed"] is False
    assert bad["value"] > 0.1
    assert bad["brier"] > good["brier"]


def test_calibration_has_the_prevalence_of_training() -> None:
    case = scored()
    # Half of all images are lenses by number, a tenth by the mix: p = 0.1 is right.
    case["logits"] = {"positive": np.full(N, logit(0.1)), "control": np.full(N, logit(0.1))}
    case["mix"] = {**MIX, "positive": 0.1, "control": 0.9}
    record = check("ece", case)
    assert record["value"] == pytest.approx(0, abs=1e-9)
    # All the same p: one bin, as long as nothing tells the images apart.
    assert [(entry["n"], entry["lenses"]) for entry in record["bins"]] == [(2 * N, pytest.approx(0.1))]


def test_calibration_of_few_images_is_not_measured() -> None:
    record = check("ece", scored(n=100))
    assert record["passed"] is None
    assert record["reason"] == "200 images, fewer than the 300 that 15 bins need"


def test_reliability_bins_have_equal_mass_and_keep_every_image() -> None:
    rng = np.random.default_rng(4)
    p, weight = rng.random(5000), rng.uniform(0.5, 2, 5000)
    label = (rng.random(5000) < p).astype(float)
    bins = reliability(p, label, weight, 10)
    np.testing.assert_allclose([entry["weight"] for entry in bins], 0.1, atol=0.002)
    assert sum(entry["n"] for entry in bins) == 5000
    means = [entry["p"] for entry in bins]
    assert means == sorted(means)
    np.testing.assert_allclose(means, [entry["lenses"] for entry in bins], atol=0.06)
