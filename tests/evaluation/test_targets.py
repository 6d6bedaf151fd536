"""Success targets: every one of the plans is judged by its whole interval, and what was not measured says so."""

import csv
from pathlib import Path
from typing import Any

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import Manifest
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.intervals import clopper_pearson
from dark_halo_scope.evaluation.measure_targets import main, measure
from dark_halo_scope.evaluation.target_metrics import At, Largest, Where
from dark_halo_scope.evaluation.target_numbers import (
    Number,
    as_number,
    difference,
    judge,
    number_at,
    read_artifacts,
    smallest_rate,
    stratum_number,
)
from dark_halo_scope.evaluation.target_values import target_entry, value_of
from dark_halo_scope.evaluation.targets import TARGETS, Target, generations, needed

SURVEY = {"name": "mini", "embedded": True}


def entry(value: float | None, low: float = 0.0, high: float = 1.0, n: int = 100, **more: Any) -> dict[str, Any]:
    status = "measured" if value is not None else "not measurable: 3 negatives pass the threshold, and 10 are needed"
    return {"value": value, "interval": [low, high], "n": n, "status": status} | more


def gate(value: float, low: float, high: float, bound: str, threshold: float, weight: str) -> dict[str, Any]:
    passed = value <= threshold if bound == "at most" else value >= threshold
    return entry(value, low, high) | {"bound": bound, "threshold": threshold, "weight": weight, "passed": passed}


GATES = {
    "G1": gate(0.50, 0.45, 0.55, "at most", 0.60, "critical"),
    "G2": gate(0.58, 0.55, 0.62, "at most", 0.60, "critical"),
    "G3": gate(0.90, 0.88, 0.92, "at least", 0.75, "important"),
    "G4": gate(0.20, 0.18, 0.22, "at most", 0.05, "critical"),
    "G5": gate(0.29, 0.27, 0.32, "at least", 0.30, "important"),
}
HISTORY = {
    "epochs": [{"epoch": 0}, {"epoch": 1}],
    "decisions": [
        {"kind": "red flag", "name": "auc_drop"},
        {"kind": "red flag", "name": "core_auc"},
        {
            "kind": "checkpoint",
            "name": "day 3",
            "items": [
                {"name": "val_auc", "value": 0.91, "threshold": "> 0.8", "met": True},
                {"name": "core_auc", "value": None, "threshold": "< 0.75", "met": False},
            ],
        },
    ],
    "checks": {
        "arc_snr_0_accuracy": {"last": {"value": None, "n": 0, "passed": None, "reason": "0 arcs of arc_snr 0"}}
    },
}


def find(name: str) -> Target:
    return next(target for target in TARGETS if target.name == name)


def judged(name: str, artifacts: dict[str, Any] | None) -> dict[str, Any]:
    target = find(name)
    return target_entry(target, target.generations[0], artifacts)


def stratum_rows(counts: dict[str, tuple[int, int]], negatives: int = 20_000) -> list[dict[str, str]]:
    """Rows as csv.DictReader gives them: stratum -> (hits at FPR 1e-3, positives)."""
    return [
        {
            "stratum": name,
            "P": str(positives),
            "N": str(negatives),
            "status": "measured",
            "TPR@FPR0.001": str(hits / positives),
        }
        for name, (hits, positives) in counts.items()
    ]


@pytest.mark.parametrize(
    ("interval", "bound", "threshold", "expected"),
    [
        ((0.8, 0.9), "at least", 0.80, ("met", "met")),
        ((0.8, 0.9), "above", 0.80, ("undecided", "met")),
        ((0.8, 0.9), "at least", 0.86, ("undecided", "not met")),
        ((0.8, 0.9), "at least", 0.91, ("not met", "not met")),
        ((0.8, 0.9), "at most", 0.90, ("met", "met")),
        ((0.8, 0.9), "below", 0.90, ("undecided", "met")),
        ((0.8, 0.9), "below", 0.79, ("not met", "not met")),
        (None, "above", 0.84, ("met", "met")),
        (None, "above", 0.86, ("not met", "not met")),
    ],
)
def test_an_interval_on_both_sides_of_the_threshold_decides_nothing(
    interval: tuple[float, float] | None, bound: Any, threshold: float, expected: tuple[str, str]
) -> None:
    assert judge(Number(0.85, 100, interval, "measured"), bound, threshold) == expected


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0.005, (-0.01, 0.02), ("met", "met")),
        (0.005, (-0.2, 0.21), ("undecided", "met")),
        (0.03, (0.01, 0.05), ("undecided", "not met")),
        (0.05, (0.03, 0.07), ("not met", "not met")),
        (-0.05, (-0.07, -0.03), ("not met", "not met")),
        (0.01, None, ("met", "met")),
    ],
)
def test_two_numbers_are_equal_where_the_whole_interval_of_their_difference_is_small(
    value: float, interval: tuple[float, float] | None, expected: tuple[str, str]
) -> None:
    """Fewer images make a wider interval, which holds the threshold the more easily and shows less."""
    assert judge(Number(value, 100, interval, "measured"), "equal to", 0.0, margin=0.02) == expected


def test_a_number_that_is_not_measurable_gets_no_verdict_even_where_its_value_would_pass() -> None:
    """The gates' own TPR at FPR has a value beside a status that says it proves nothing."""
    number = as_number({"value": 0.9, "status": "not measurable: too few", "n": 10, "interval": [0.8, 0.95]})
    assert number.value is None
    assert judge(number, "at least", 0.5) == ("not measurable", None)


def test_every_target_of_the_plans_is_there_once() -> None:
    names = [target.name for target in TARGETS]
    assert len(set(names)) == len(names)
    thresholds = {target.name: (target.bound, target.threshold) for target in TARGETS}
    assert thresholds["gen3_tpr_at_fpr_1e-4"] == ("above", 0.85)
    assert thresholds["gen3_fpr_at_tpr_0.85"] == ("below", 0.001)
    assert [thresholds[f"gate_G{i}"][1] for i in range(1, 6)] == [0.60, 0.60, 0.75, 0.05, 0.30]
    assert [thresholds[f"day_3_{name}"][1] for name in ("val_auc", "core_auc", "hard_negative_mean_p")] == [
        0.80,
        0.75,
        0.20,
    ]
    assert thresholds["review_auroc"] == ("above", 0.97)
    assert thresholds["minimum_tier_a_recall"] == ("at least", 0.75)
    assert thresholds["publication_tier_a_recall"] == ("at least", 0.85)
    assert all(target.source and target.condition and target.generations for target in TARGETS)
    circular = {target.name for target in TARGETS if "known_lenses.json" in target.condition}
    assert circular == {"minimum_tier_a_recall", "validation_tier_a_recall", "publication_tier_a_recall"}


def test_a_generation_that_was_never_trained_says_so_for_each_of_its_targets() -> None:
    result = measure({}, SURVEY)
    assert {item["status"] for item in result["targets"]} == {"not measured: generation not trained yet"}
    assert result["verdicts"] == {"not measured": len(result["targets"])}
    assert len(result["targets"]) == sum(len(target.generations) for target in TARGETS)


def test_the_registry_says_which_artifacts_a_generation_needs() -> None:
    assert needed("gen3") == ["performance"]
    assert {"gates", "history", "performance", "stratified_fpr", "calibration", "completeness", "anchors"} == set(
        needed("gen5_prime")
    )
    # Real images have no pairs to be gated on: nothing of theirs is measured on pairs.
    assert set(needed("real_resnet18")) == {"validation", "history", "selection_function"}
    assert needed("nobody") == []
    assert generations()[0] == "gen3"


def test_gates_are_counted_from_those_that_surely_pass_to_those_that_may() -> None:
    """G1 and G3 surely pass, G2 and G5 may, G4 surely fails; by their values three pass."""
    artifacts = {"gates": {"gates": GATES}}
    result = judged("day_5_gates", artifacts)
    assert (result["value"], result["interval"], result["n"]) == (3, [2, 4], 5)
    assert (result["verdict"], result["by_value"]) == ("undecided", "not met")
    assert judged("critical_gates", artifacts)["interval"] == [1, 2]
    assert judged("gate_G2", artifacts)["verdict"] == "undecided"


def test_numbers_are_found_by_the_target_of_their_list() -> None:
    rates = [{"fpr_target": 0.01, **entry(0.9)}, {"fpr_target": 0.0001, **entry(0.86, 0.855, 0.87)}]
    artifacts = {"performance": {"positives_vs_controls": {"tpr_at_fpr": rates}}}
    assert judged("gen3_tpr_at_fpr_1e-4", artifacts)["verdict"] == "met"
    rates[1] |= entry(None, n=804)
    result = judged("gen3_tpr_at_fpr_1e-4", artifacts)
    assert (result["value"], result["verdict"], result["n"]) == (None, "not measurable", 804)
    assert "10 are needed" in result["status"]


def test_where_nothing_lies_the_status_names_the_place() -> None:
    at = At("performance", ("positives_vs_controls", "tpr_at_fpr", Where("fpr_target", 0.5)))
    number = value_of(at, {"performance": {"positives_vs_controls": {"tpr_at_fpr": []}}})
    assert number.status == "not measurable: performance has no positives_vs_controls/tpr_at_fpr/fpr_target=0.5"
    assert value_of(at, {}).status == "not measured: there is no performance"


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(CorruptDataError, match="measure it again"):
        number_at({"history": {"checks": {"val_auc": "good"}}}, "history", ("checks", "val_auc"))


def test_the_checkpoint_of_day_3_is_read_from_the_history() -> None:
    artifacts = {"history": HISTORY}
    result = judged("day_3_val_auc", artifacts)
    assert (result["value"], result["interval"], result["verdict"]) == (0.91, None, "met")
    assert judged("day_3_core_auc", artifacts)["verdict"] == "not measurable"
    assert judged("review_undetectable_arcs", artifacts)["status"] == "not measurable: 0 arcs of arc_snr 0"


def test_red_flags_are_counted_all_or_by_name() -> None:
    artifacts = {"history": HISTORY}
    assert judged("no_red_flags", artifacts)["value"] == 2
    assert judged("minimum_stability", artifacts)["value"] == 1
    assert judged("no_red_flags", {"history": HISTORY | {"decisions": []}})["verdict"] == "met"


def test_completeness_on_resolved_lenses_pools_strata_that_share_one_threshold() -> None:
    rows = stratum_rows(
        {"ALL": (10, 1000), "res[0.5,0.7)": (60, 100), "res[1.4,2)": (270, 300), "res outside": (1, 50)}
    )
    artifacts = {"stratified_fpr": rows}
    result = judged("handoff_completeness", artifacts)
    low, high = clopper_pearson(330, 400)
    assert (result["value"], result["n"], result["interval"]) == (330 / 400, 400, [float(low), float(high)])
    assert (result["verdict"], result["by_value"]) == ("undecided", "met")
    rows[2]["TPR@FPR0.001"] = ""
    assert "res[1.4,2) rests on fewer than 10 of 20000 negatives" in judged("handoff_completeness", artifacts)["status"]
    rows[2]["status"] = "not measurable: 40 rows, fewer than 1000"
    assert judged("handoff_completeness", artifacts)["status"].startswith("not measurable: 40 rows")
    assert stratum_number(artifacts, "TPR@FPR0.001", ("res[9,10)",)).status.startswith("not measurable: no positives")
    assert "has no TPR@FPR0.5" in stratum_number(artifacts, "TPR@FPR0.5", ("ALL",)).status


def test_completeness_of_pooled_strata_is_as_uncertain_as_their_hosts_and_their_threshold_make_it() -> None:
    rows = stratum_rows({"res[0.5,0.7)": (60, 100), "res[1.4,2)": (270, 300)})
    low, high = clopper_pearson(330, 400)
    rows[0] |= {"TPR@FPR0.001_boot_low": "0.4", "TPR@FPR0.001_boot_high": "0.65"}
    rows[1] |= {"TPR@FPR0.001_boot_low": "0.8", "TPR@FPR0.001_boot_high": "0.89"}
    assert stratum_number({"stratified_fpr": rows}, "TPR@FPR0.001", ("res[0.5,0.7)", "res[1.4,2)")).interval == (
        pytest.approx(0.7),
        float(high),
    )
    rows[1] |= {"TPR@FPR0.001_boot_low": "", "TPR@FPR0.001_boot_high": ""}
    exact = stratum_number({"stratified_fpr": rows}, "TPR@FPR0.001", ("res[0.5,0.7)", "res[1.4,2)")).interval
    assert exact == (float(low), float(high))


def easiest(name: str, alarms: int, negatives: int = 804, **more: str) -> dict[str, str]:
    low, high = clopper_pearson(alarms, negatives)
    rate = {"FPR@TPR0.80": str(alarms / negatives) if alarms >= 10 else "", "FPR@TPR0.80_k": str(alarms)}
    ends = {"FPR@TPR0.80_low": str(float(low)), "FPR@TPR0.80_high": str(float(high))}
    return {"stratum": name, "P": "100", "N": str(negatives), "status": "measured"} | rate | ends | more


def test_the_easiest_stratum_alone_never_meets_a_target_of_all() -> None:
    rows = [easiest("res[0.5,0.7)", 900, 100_000), easiest("res[1.4,2)", 30, 100_000)]
    result = judged("handoff_fpr_of_the_easiest_stratum", {"stratified_fpr": rows})
    assert (result["value"], result["verdict"]) == (3e-4, "undecided")
    rows[0] = easiest("res[0.5,0.7)", 50, 100_000)
    assert judged("handoff_fpr_of_the_easiest_stratum", {"stratified_fpr": rows})["verdict"] == "met"
    rows[0] |= {"FPR@TPR0.80_boot_low": "0.0002", "FPR@TPR0.80_boot_high": "0.0015"}
    result = judged("handoff_fpr_of_the_easiest_stratum", {"stratified_fpr": rows})
    assert (result["interval"][1], result["verdict"]) == (0.0015, "undecided")
    rows[0] = easiest("res[0.5,0.7)", 50, 100_000, P="4")
    assert judged("handoff_fpr_of_the_easiest_stratum", {"stratified_fpr": rows})["interval"][1] == 1.0


def test_the_easiest_stratum_bounds_the_rate_of_all_from_below() -> None:
    row = easiest
    artifacts = {"stratified_fpr": [row("res[0.5,0.7)", 200), row("res[1.4,2)", 46)]}
    result = judged("handoff_fpr_of_the_easiest_stratum", artifacts)
    assert (result["value"], result["verdict"]) == (46 / 804, "not met")
    artifacts = {"stratified_fpr": [row("res[0.5,0.7)", 200), row("res[1.4,2)", 3)]}
    number = smallest_rate(artifacts, "FPR@TPR0.80", ("res[0.5,0.7)", "res[1.4,2)"))
    assert number.value is None
    assert number.interval is not None
    assert "res[1.4,2) rests on fewer than 10 of 804" in number.status
    few = row("res[1.4,2)", 12) | {"P": "4", "FPR@TPR0.80": ""}
    assert "rests on 4 positives" in smallest_rate({"stratified_fpr": [few]}, "FPR@TPR0.80", ("res[1.4,2)",)).status


def test_an_axis_without_a_cell_that_was_measured_is_no_surface() -> None:
    empty = entry(None) | {"interval": None}
    marginals: dict[str, Any] = {
        "theta_e_arcsec": {"p=0.5": [empty, entry(0.4)]},
        "psfsize_r": {"p=0.5": [empty, empty]},
        "psfdepth_r": {"p=0.5": []},
    }
    artifacts = {"completeness": {"marginals": marginals}}
    result = judged("handoff_completeness_surfaces", artifacts)
    assert (result["value"], result["verdict"]) == (1, "not met")
    marginals |= {key: {"p=0.5": [entry(0.4)]} for key in marginals}
    assert judged("handoff_completeness_surfaces", artifacts)["verdict"] == "met"
    marginals["psfsize_r"] = {}
    assert judged("handoff_completeness_surfaces", artifacts)["value"] == 2


def test_validation_and_test_agree_where_their_difference_is_surely_small() -> None:
    spatial = {"test_auc": entry(0.95, 0.945, 0.955), "val_auc": entry(0.955, 0.95, 0.96)}
    artifacts = {"validation": {"spatial": spatial}}
    result = judged("publication_spatial_generalisation", artifacts)
    assert (result["verdict"], result["due"]) == ("met", "= 0 +- 0.02")
    spatial["val_auc"] = entry(0.955, 0.80, 1.0)
    assert judged("publication_spatial_generalisation", artifacts)["verdict"] == "undecided"
    spatial["val_auc"] = entry(0.99, 0.98, 1.0)
    result = judged("publication_spatial_generalisation", artifacts)
    assert (result["verdict"], round(result["value"], 3)) == ("not met", -0.04)


def test_a_difference_is_as_uncertain_as_both_numbers() -> None:
    first, second = Number(0.9, 50, (0.86, 0.93), "measured"), Number(0.5, 80, (0.46, 0.53), "measured")
    assert difference(first, second).interval == pytest.approx((0.4 - 0.05, 0.4 + 0.05))
    assert difference(first, second).n == 50
    assert difference(Number(0.9, None, None, "measured"), Number(0.5, None, None, "measured")).interval is None
    assert difference(Number.unmeasured("not measured: there is none"), Number(1.0, 1, None, "measured")).value is None


def test_the_worst_confuser_counts_and_one_that_is_missing_leaves_no_number() -> None:
    shares = {
        f"confuser {name}": {"p0.5": entry(value, value - 0.01, value + 0.01)}
        for name, value in {
            "ring_proxy": 0.02,
            "edge_on_proxy": 0.30,
            "blue_clumpy": 0.01,
            "large_galaxy": 0.05,
        }.items()
    }
    artifacts = {"validation": {"fpr": {"sample": shares}}}
    result = judged("minimum_contaminant_fpr", artifacts)
    assert (result["value"], result["verdict"]) == (0.30, "not met")
    del shares["confuser blue_clumpy"]
    assert judged("minimum_contaminant_fpr", artifacts)["verdict"] == "not measurable"
    assert judged("publication_confusers_reported", artifacts)["value"] == 3


def test_a_small_class_that_may_be_the_worst_leaves_a_target_undecided() -> None:
    metric = Largest("anchors", ("contamination",), ("ring", "spiral"), ("p0.5",))
    shares = {"ring": {"p0.5": entry(0.05, 0.04, 0.06)}, "spiral": {"p0.5": entry(0.06, 0.05, 0.07, n=1000)}}
    artifacts = {"anchors": {"contamination": shares}}
    assert judge(value_of(metric, artifacts), "at most", 0.1) == ("met", "met")
    shares["ring"] = {"p0.5": entry(0.05, 0.001, 0.25, n=20)}
    number = value_of(metric, artifacts)
    assert (number.value, number.n, number.interval) == (0.06, 1000, (0.05, 0.25))
    assert judge(number, "at most", 0.1) == ("undecided", "met")


def test_a_verdict_needs_the_interval_over_hosts_too() -> None:
    """Twice the same galaxy is no more evidence than once, and an exact interval does not know that."""
    assert as_number(entry(0.5, 0.4, 0.6)).interval == (0.4, 0.6)
    assert as_number(entry(0.5, 0.4, 0.6, host_interval=None)).interval == (0.4, 0.6)
    assert as_number(entry(0.5, 0.4, 0.6, host_interval=[0.35, 0.59])).interval == (0.35, 0.6)
    assert as_number(entry(0.0, 0.0, 0.03, host_interval=[0.0, 0.0])).interval == (0.0, 0.03)


def test_a_gate_that_was_not_measured_may_pass() -> None:
    unknown = entry(None) | {"bound": "at most", "threshold": 0.6, "weight": "critical", "passed": False}
    result = judged("critical_gates", {"gates": {"gates": GATES | {"G2": unknown, "G4": unknown}}})
    assert (result["value"], result["interval"], result["verdict"]) == (1, [1, 3], "undecided")


def write_generation(folder: Path, name: str = "gen5_prime", weights: str = "a" * 64) -> list[Path]:
    gates = sealed({"generation": name, "model_sha256": weights, "gates": GATES})
    paths = [
        folder / name / "gates.json",
        folder / name / "main" / "best.json",
        folder / name / "main" / "history.json",
    ]
    write_json(paths[0], gates)
    write_json(paths[1], {"generation": name, "weights": {"sha256": weights}})
    write_json(paths[2], HISTORY)
    return paths


def test_the_command_says_of_which_survey_its_numbers_are(tmp_path: Path) -> None:
    survey = Manifest(kind="survey", uri="survey", objects=0, bytes=0, sha256="0" * 64, facts=SURVEY)
    write_json(tmp_path / "survey.json", survey.model_dump())
    paths = write_generation(tmp_path)
    output = tmp_path / "targets.json"
    arguments = ["--survey", tmp_path / "survey.json", "--artifacts", *paths, "--output", output]
    main([str(item) for item in arguments])
    result = read_json(output)
    assert result["survey"]["name"] == "mini"
    assert "no number here is one of the real sky" in result["survey"]["condition"]
    found = {(item["target"], item["generation"]): item for item in result["targets"]}
    assert found["gate_G1", "gen5_prime"]["verdict"] == "met"
    assert found["gate_G1", "gen5_prime_paired"]["verdict"] == "not measured"
    assert found["review_auroc", "gen5_prime"]["status"] == "not measured: there is no performance"


def test_artifacts_of_other_weights_than_the_best_are_refused(tmp_path: Path) -> None:
    paths = write_generation(tmp_path)
    write_json(paths[1], {"generation": "gen5_prime", "weights": {"sha256": "b" * 64}})
    with pytest.raises(BadInputError, match="best, gates of gen5_prime are of different weights"):
        read_artifacts(paths)


def test_artifacts_that_were_edited_or_moved_are_refused(tmp_path: Path) -> None:
    paths = write_generation(tmp_path)
    content = read_json(paths[0])
    write_json(paths[0], content | {"verdict": "pass"})
    with pytest.raises(CorruptDataError, match="changed after it was written"):
        read_artifacts(paths)
    (tmp_path / "gen2").mkdir()
    write_json(tmp_path / "gen2" / "gates.json", content)
    with pytest.raises(BadInputError, match="is of gen5_prime, not of gen2"):
        read_artifacts([tmp_path / "gen2" / "gates.json"])


def test_what_is_no_artifact_or_is_there_twice_is_refused(tmp_path: Path) -> None:
    paths = write_generation(tmp_path)
    with pytest.raises(BadInputError, match="is the second gates of gen5_prime"):
        read_artifacts([paths[0], paths[0]])
    write_json(tmp_path / "gen5_prime" / "scores.json", {})
    with pytest.raises(BadInputError, match="is nothing that is measured of a generation"):
        read_artifacts([tmp_path / "gen5_prime" / "scores.json"])


def test_a_generation_without_a_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No target is set for gen9"):
        measure(read_artifacts(write_generation(tmp_path, "gen9")), SURVEY)


def test_a_table_of_strata_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "gen2" / "stratified_fpr.csv"
    path.parent.mkdir()
    rows = stratum_rows({"res[0.5,0.7)": (90, 100)})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    number = stratum_number(read_artifacts([path])["gen2"], "TPR@FPR0.001", ("res[0.5,0.7)",))
    assert number.value == 0.9
