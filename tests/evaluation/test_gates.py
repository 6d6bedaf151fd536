"""A network that uses a known cue passes and fails exactly the gates that it should."""

import json
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from dark_halo_scope.evaluation import gates
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.pairs import host_labels, stratum_masks

from . import toys

SETTINGS = GateSettings(bootstraps=100, permutations=100)


def measure(predict: gates.Predict, split: toys.ToySplit, settings: GateSettings = SETTINGS) -> dict:
    return gates.measure_gates(predict, split, settings, np.random.default_rng(0))


def passed(result: dict) -> set[str]:
    return {name for name, entry in result["gates"].items() if entry["passed"]}


def test_a_finder_of_one_sided_arcs_passes_everything() -> None:
    result = measure(toys.sees_arcs, toys.make_split())
    assert passed(result) == {"G1", "G2", "G3", "G4", "G5"}
    assert result["verdict"] == "pass"
    assert result["remedies"] == {}


def test_a_network_of_radial_profiles_fails_the_radial_gate_and_the_hard_negatives() -> None:
    result = measure(toys.sees_radial_profile, toys.make_split())
    assert passed(result) == {"G1", "G3", "G5"}
    assert result["gates"]["G2"]["value"] > 0.95
    assert result["verdict"] == "fail"
    assert set(result["remedies"]) == {"G2", "G4"}


def test_a_network_of_core_brightness_fails_every_gate() -> None:
    result = measure(toys.sees_core, toys.make_split(core_excess=0.5))
    assert passed(result) == set()
    assert result["gates"]["G1"]["value"] > 0.95
    assert result["gates"]["G3"]["value"] == pytest.approx(0.5, abs=0.05)
    assert result["gates"]["G5"]["value"] == pytest.approx(0, abs=0.01)


def test_the_core_cue_is_harmless_to_a_network_that_does_not_use_it() -> None:
    assert measure(toys.sees_arcs, toys.make_split(core_excess=0.5))["verdict"] == "pass"


def test_a_coin_toss_fails_and_its_null_says_why() -> None:
    rng = np.random.default_rng(1)
    result = measure(lambda images, rows, controls: rng.normal(size=len(images)), toys.make_split())
    assert result["verdict"] == "fail"
    assert not passed(result) & {"G3", "G4", "G5"}
    for name in ("G3", "G5"):
        entry = result["gates"][name]
        assert entry["null"]["low"] <= entry["value"] <= entry["null"]["high"]


def test_every_number_has_n_interval_null_threshold_and_weight_in_every_stratum() -> None:
    result = measure(toys.sees_arcs, toys.make_split())
    json.dumps(result, allow_nan=False)
    assert {name: entry["weight"] for name, entry in result["gates"].items()} == {
        "G1": "critical",
        "G2": "critical",
        "G3": "important",
        "G4": "critical",
        "G5": "important",
    }
    for name, entry in result["gates"].items():
        low, high = entry["interval"]
        assert low <= entry["value"] <= high
        assert (entry["n"], entry["hosts"]) == (240, 120)
        assert set(entry["null"]) == {"mean", "low", "high", "p_value"}
        assert entry["threshold"] == result["thresholds"][name]
        assert set(entry["strata"]) == {"x < 0.5", "0.5 <= x < 1", "x >= 1", "all"}
        assert entry["strata"]["x < 0.5"]["status"] == "too few"
        assert entry["strata"]["x < 0.5"]["value"] is None


def test_the_null_of_g4_is_a_network_that_cannot_tell_hard_negatives_from_arcs() -> None:
    entry = measure(toys.sees_arcs, toys.make_split())["gates"]["G4"]
    assert entry["null"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert entry["null"]["p_value"] < 0.02


def unresolved(split: toys.ToySplit, mask: np.ndarray) -> toys.ToySplit:
    """The same pairs, those of the mask with a PSF so wide that x = 0.75."""
    psfsize = pa.array(np.where(mask, toys.THETA_E / 0.75, toys.PSFSIZE))
    split.rows = split.rows.set_column(split.rows.column_names.index("psfsize_r"), "psfsize_r", psfsize)
    return split


def test_g1_to_g3_are_judged_on_resolved_arcs_and_the_others_on_all() -> None:
    mask = np.arange(240) < 100
    result = measure(toys.sees_arcs, unresolved(toys.make_split(), mask))
    for name, entry in result["gates"].items():
        resolved = name in {"G1", "G2", "G3"}
        assert entry["n"] == (140 if resolved else 240)
        assert entry["stratum"] == ("x >= 1" if resolved else "all")
        assert entry["value"] == entry["strata"][entry["stratum"]]["value"]
        assert entry["strata"]["0.5 <= x < 1"]["n"] == 100


def test_too_few_resolved_pairs_close_the_gates_that_need_them() -> None:
    result = measure(toys.sees_arcs, unresolved(toys.make_split(), np.arange(240) >= 60))
    assert passed(result) == {"G4", "G5"}, "60 pairs of 30 hosts are fewer than 50 hosts"
    assert result["gates"]["G1"]["status"] == "too few"
    assert "30 hosts" in result["remedies"]["G1"]
    assert result["verdict"] == "fail"


def test_an_empty_split_closes_every_gate_and_still_gives_a_result() -> None:
    split = toys.make_split(4)
    split.rows = split.rows.set_column(
        split.rows.column_names.index("cutout_ok"), "cutout_ok", pa.array(np.zeros(4, dtype=np.int32))
    )
    result = measure(toys.sees_arcs, split)
    assert passed(result) == set()
    assert {entry["n"] for entry in result["gates"].values()} == {0}
    assert result["diagnostics"]["excluded"] == {"cutout not ok": 4}
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_logit_that_is_not_finite_closes_the_gates(bad: float) -> None:
    def broken(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        logits = toys.sees_arcs(images, rows)
        logits[3] = bad
        return logits

    result = measure(broken, toys.make_split())
    assert passed(result) == set()
    assert {entry["status"] for entry in result["gates"].values()} == {"not finite"}
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("kind", ["positive", "control", "hard_negative"])
def test_a_stamp_that_is_not_finite_is_counted_and_never_scored(kind: str) -> None:
    split = toys.make_split()
    getattr(split, kind)[7, 1, 3, 3] = np.nan

    def strict(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        assert np.isfinite(images).all()
        assert "task00007" not in rows["task_id"].to_pylist()
        return toys.sees_arcs(images, rows)

    result = measure(strict, split)
    assert result["diagnostics"]["excluded"] == {"pixels not finite": 1}
    assert result["gates"]["G4"]["n"] == 239


def test_rows_given_to_the_network_belong_to_its_images() -> None:
    split = toys.make_split(130)

    def check(images: np.ndarray, rows: pa.Table, controls: np.ndarray | None = None) -> np.ndarray:
        index = [int(task[4:]) for task in rows["task_id"].to_pylist()]
        outside = toys.RADIUS > 3.5  # no gate touches these pixels but the ring average
        near = np.abs(images[..., outside] - split.control[index].astype(np.float32)[..., outside]).max(axis=(1, 2))
        assert near.max() < 0.02
        return toys.sees_arcs(images, rows)

    measure(check, split, SETTINGS.model_copy(update={"batch_pairs": 64}))


def test_the_batch_size_does_not_change_the_result() -> None:
    split = toys.make_split()
    small, large = (measure(toys.sees_arcs, split, SETTINGS.model_copy(update={"batch_pairs": n})) for n in (17, 999))
    for name in small["gates"]:
        assert small["gates"][name]["value"] == pytest.approx(large["gates"][name]["value"], abs=1e-6)


def test_without_resampling_values_stay_and_intervals_go() -> None:
    split = toys.make_split()
    full, quick = measure(toys.sees_arcs, split), measure(toys.sees_arcs, split, SETTINGS.without_resampling())
    for name in full["gates"]:
        assert quick["gates"][name]["value"] == full["gates"][name]["value"]
        assert quick["gates"][name]["interval"] is None
        assert quick["gates"][name]["null"] is None


def test_max_pairs_measures_on_a_reproducible_choice() -> None:
    split = toys.make_split()

    def run() -> dict:
        return gates.measure_gates(toys.sees_arcs, split, SETTINGS, np.random.default_rng(5), max_pairs=150)

    result = run()
    assert result["gates"]["G4"]["n"] == 150
    assert run() == result


def test_the_seeds_annulus_is_wider() -> None:
    assert GateSettings().annulus_factor == 1.0
    assert GateSettings(annulus="seeds").annulus_factor == 1.5
    assert GateSettings(annulus=1.25).annulus_factor == 1.25


@pytest.mark.parametrize("outcome", list(product([False, True], repeat=5)))
def test_the_verdict_follows_the_plan(outcome: tuple[bool, ...]) -> None:
    g1, g2, g3, g4, g5 = outcome
    result = gates.verdict(dict(zip(("G1", "G2", "G3", "G4", "G5"), outcome, strict=True)))
    if not (g1 and g2 and g4):
        assert result == "fail"
    elif g3 or g5:
        assert result == "pass"
    else:
        assert result == "marginal"


def test_thresholds_are_those_of_the_plan_and_a_subset_overrides_only_itself() -> None:
    assert GateSettings().thresholds == {"G1": 0.60, "G2": 0.60, "G3": 0.75, "G4": 0.05, "G5": 0.30}
    assert GateSettings(thresholds={"G4": 0.1}).thresholds["G1"] == 0.60
    with pytest.raises(ValidationError, match="unknown gate G6"):
        GateSettings(thresholds={"G6": 0.1})
    with pytest.raises(ValidationError):
        GateSettings(thresholds={"G1": float("nan")})


def test_a_value_exactly_at_its_threshold_passes() -> None:
    by_name = {gate.name: gate for gate in gates.REGISTRY}
    assert by_name["G1"].passes(0.60, 0.60)
    assert by_name["G3"].passes(0.75, 0.75)
    assert not by_name["G1"].passes(float("nan"), 0.60)
    assert not by_name["G3"].passes(float("nan"), 0.75)


def test_strata_include_their_lower_edge() -> None:
    masks = stratum_masks(np.array([0.49, 0.5, 0.99, 1.0, 3.0]), (0.5, 1.0))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "x < 0.5": 1,
        "0.5 <= x < 1": 2,
        "x >= 1": 2,
        "all": 5,
    }


def test_hosts_are_known_by_brick_and_object_or_by_position() -> None:
    rows = toys.make_split(12).rows
    expected = np.repeat(np.arange(6), 2)
    np.testing.assert_array_equal(host_labels(rows), expected)
    np.testing.assert_array_equal(host_labels(rows.drop_columns(["objid"])), expected)
    twice = rows.set_column(rows.column_names.index("objid"), "objid", pc.multiply(rows["objid"], 0))
    assert len(set(host_labels(twice))) == 1


def test_diagnostics_never_decide_but_say_how_well_the_network_finds_lenses() -> None:
    found = measure(toys.sees_arcs, toys.make_split())["diagnostics"]
    assert found["auc_positive_control"]["all"]["value"] > 0.99
    assert found["mean_p"]["positive"] > 0.9
    assert found["mean_p"]["control"] < 0.05
    assert found["tpr_at_fpr"]["0.1"]["status"] == "measured"
    assert found["tpr_at_fpr"]["0.001"]["status"] == "not measurable"
    assert found["hard_negative_fpr_at_0.5"] == {
        "value": 0.0,
        "n": 240,
        "interval": [0.0, pytest.approx(0.0153, abs=1e-3)],
    }


def test_a_predictor_that_returns_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one logit per image"):
        measure(lambda images, rows, controls: np.zeros((len(images), 1)), toys.make_split())
