"""Every number of performance.json is the metric of its name, with its interval, or says why there is none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sklearn_metrics

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.evaluation import measure_performance, metrics
from dark_halo_scope.evaluation.performance import thinned_roc

from .score_rows import negative_rows, pair_rows, write_scores

TEST, VAL = pair_rows(600, seed=1), pair_rows(400, seed=2, split="val")


def measured(folder: Path, test: pa.Table = TEST, val: pa.Table = VAL, **settings: object) -> dict[str, Any]:
    write_scores(folder / "test.json", test)
    write_scores(folder / "val.json", val, "val")
    arguments = ["--test", str(folder / "test.json"), "--val", str(folder / "val.json")]
    output = folder / "performance.json"
    measure_performance.main(
        [*arguments, "--output", str(output), "--settings", json.dumps({"bootstraps": 200, **settings})]
    )
    return read_json(output)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp("performance"))


def scores(rows: pa.Table, kind: str, once: bool = False) -> np.ndarray:
    chosen = rows.filter(pa.compute.equal(rows["kind"], kind))
    values = chosen["score"].to_numpy()
    if not once:
        return values
    hosts = list(zip(chosen["brickname"].to_pylist(), chosen["objid"].to_pylist(), strict=True))
    return values[[hosts.index(host) for host in dict.fromkeys(hosts)]]


POSITIVE, CONTROL, PAIRS = scores(TEST, "positive"), scores(TEST, "control", once=True), scores(TEST, "control")


def entries(value: object) -> Iterator[dict[str, Any]]:
    """Every number entry of a JSON result."""
    if isinstance(value, dict):
        if "status" in value and "value" in value:
            yield value
        for item in value.values():
            yield from entries(item)
    elif isinstance(value, list):
        for item in value:
            yield from entries(item)


def test_areas_equal_scikit_learn(result: dict[str, Any]) -> None:
    found = result["positives_vs_controls"]
    labels = np.repeat([1, 0], [len(POSITIVE), len(CONTROL)])
    expected = sklearn_metrics.roc_auc_score(labels, np.concatenate([POSITIVE, CONTROL]))
    assert found["auroc"]["value"] == found["auroc_delong"]["value"] == pytest.approx(expected)
    labels = np.repeat([1, 0], [len(POSITIVE), len(PAIRS)])
    expected = sklearn_metrics.average_precision_score(labels, np.concatenate([POSITIVE, PAIRS]))
    assert found["average_precision"]["value"] == pytest.approx(expected)
    assert found["average_precision"]["prevalence"] == 0.5


def test_every_number_lies_in_its_interval_and_every_other_says_why_there_is_none(result: dict[str, Any]) -> None:
    found = list(entries(result))
    assert len(found) > 60
    for entry in found:
        if entry["status"] == "measured":
            low, high = entry["interval"]
            assert low <= entry["value"] <= high
            assert entry["n"] > 0
        else:
            assert entry["status"].startswith("not measurable: ")
            assert entry["value"] is None


def test_a_control_of_a_host_with_two_arcs_is_one_negative_in_rates_and_one_of_each_pair_in_precision(
    result: dict[str, Any],
) -> None:
    assert result["counts"]["test"]["control"] == {"images": 1200, "distinct": 600, "hosts": 600}
    found = result["positives_vs_controls"]
    assert (found["n_positive"], found["n_negative"], found["hosts_negative"]) == (1200, 600, 600)
    assert found["fpr_at_tpr"][0]["n"] == 600
    counts = found["confusion"]
    assert counts["true_negatives"] + counts["false_positives"] == 1200
    assert counts["true_positives"] == int(np.sum(POSITIVE >= 0.5))


def test_rates_at_fixed_rates_are_those_of_the_metrics(result: dict[str, Any]) -> None:
    found = result["positives_vs_controls"]
    by_fpr = {entry["fpr_target"]: entry for entry in found["tpr_at_fpr"]}
    assert by_fpr[0.1]["value"] == metrics.tpr_at_fpr(POSITIVE, CONTROL, 0.1).tpr.value
    assert by_fpr[0.1]["fpr"]["k"] == 60
    for entry in found["fpr_at_tpr"]:
        assert np.mean(entry["threshold"] <= POSITIVE) >= entry["tpr_target"]
        assert np.mean(entry["threshold"] <= CONTROL) == entry["value"]
        low, high = entry["host_interval"]
        assert low <= entry["value"] <= high
    precision = {entry["recall_target"]: entry["value"] for entry in found["precision_at_recall"]}
    assert precision[0.9] == metrics.precision_at_recall(POSITIVE, PAIRS, 0.9).precision.value


def test_rates_that_several_images_of_a_host_decide_have_an_interval_over_hosts(result: dict[str, Any]) -> None:
    found = result["positives_vs_controls"]
    shares = [found["accuracy"], *found["precision_at_recall"], *found["recall_at_precision"]]
    shares += [result["fpr_at_threshold"][kind] for kind in ("control", "hard_negative")]
    shares += [result["operating_points"][0]["test"][name] for name in ("tpr", "fpr", "hard_negative_fpr")]
    for entry in shares:
        low, high = entry["host_interval"]
        assert low <= entry["value"] <= high
    # Each control is in two pairs and its host bears two arcs that share a brightness.
    exact, over_hosts = (np.diff(found["accuracy"][name])[0] for name in ("interval", "host_interval"))
    assert over_hosts > 1.1 * exact
    assert result["fpr_at_threshold"]["negative"]["host_interval"] is None


def test_a_rate_that_fewer_than_ten_controls_reach_is_not_measurable(result: dict[str, Any]) -> None:
    by_fpr = {entry["fpr_target"]: entry for entry in result["positives_vs_controls"]["tpr_at_fpr"]}
    assert by_fpr[0.01]["status"] == "not measurable: 6 negatives pass the threshold, and 10 are needed"
    assert by_fpr[0.01]["threshold"] is None
    assert by_fpr[0.01]["fpr"]["interval"][1] < 0.03


def test_operating_points_come_from_validation_and_test_scores_do_not_move_them(
    result: dict[str, Any], tmp_path: Path
) -> None:
    control = scores(VAL, "control", once=True)
    point, few, none = result["operating_points"]
    assert point["threshold"] == metrics.tpr_at_fpr(scores(VAL, "positive"), control, 0.1).threshold
    assert point["val"]["fpr"]["k"] == np.sum(control >= point["threshold"]) == 40
    assert point["test"]["tpr"]["value"] == np.mean(point["threshold"] <= POSITIVE)
    assert point["test"]["fpr"]["value"] == np.mean(point["threshold"] <= CONTROL)
    assert few["threshold"] is none["threshold"] is None
    assert few["status"].startswith("not measurable: of 400 validation controls, 4 negatives pass")
    other = measured(tmp_path, test=pair_rows(300, seed=9), bootstraps=0)
    assert other["operating_points"][0]["threshold"] == point["threshold"]


def test_a_class_that_there_is_not_is_one_entry_that_says_so(result: dict[str, Any]) -> None:
    assert result["positives_vs_negatives"]["status"] == "not measurable: 1200 positives and 0 negatives are too few"
    assert result["fpr_at_threshold"]["negative"]["value"] is None


def test_negatives_of_no_pair_are_compared_apart(tmp_path: Path) -> None:
    others = negative_rows(500)
    found = measured(tmp_path, test=pa.concat_tables([TEST, others]), bootstraps=0)
    labels = np.repeat([1, 0], [len(POSITIVE), 500])
    expected = sklearn_metrics.roc_auc_score(labels, np.concatenate([POSITIVE, others["score"].to_numpy()]))
    assert found["positives_vs_negatives"]["auroc"]["value"] == pytest.approx(expected)
    assert found["positives_vs_negatives"]["auroc"]["interval"] is None
    assert found["positives_vs_controls"]["n_negative"] == 600


def test_two_runs_write_the_same_bytes(result: dict[str, Any], tmp_path: Path) -> None:
    assert measured(tmp_path) == result


def test_scores_of_another_network_or_split_are_refused(tmp_path: Path) -> None:
    write_scores(tmp_path / "test.json", TEST)
    write_scores(tmp_path / "val.json", VAL, "val", model="c" * 64)
    arguments = ["--output", str(tmp_path / "performance.json"), "--test", str(tmp_path / "test.json"), "--val"]
    with pytest.raises(BadInputError, match="another network"):
        measure_performance.main([*arguments, str(tmp_path / "val.json")])
    with pytest.raises(BadInputError, match="not of val"):
        measure_performance.main([*arguments, str(tmp_path / "test.json")])


def test_a_thinned_roc_keeps_both_ends_and_points_of_the_curve_in_order() -> None:
    rng = np.random.default_rng(3)
    positive, negative = rng.normal(2, 1, 3000), rng.normal(0, 1, 40_000)
    roc = thinned_roc(positive, negative, 400, 0.95)
    assert len(roc["fpr"]) <= 400
    assert (roc["fpr"][0], roc["tpr"][0], roc["threshold"][0]) == (0, 0, None)
    assert (roc["fpr"][-1], roc["tpr"][-1]) == (1, 1)
    for fpr, tpr, threshold in list(zip(roc["fpr"], roc["tpr"], roc["threshold"], strict=True))[1:]:
        assert fpr == np.mean(negative >= threshold)
        assert tpr == np.mean(positive >= threshold)
    for name in ("fpr", "tpr"):
        low, value, high = (np.array(roc[key]) for key in (f"{name}_low", name, f"{name}_high"))
        assert ((low <= value) & (value <= high)).all()
        assert (np.diff(value) >= 0).all()
    assert thinned_roc(positive, negative[:0], 400, 0.95)["fpr"] == []
