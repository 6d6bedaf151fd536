"""The table of ablations: differences to the base on the same images, hosts resampled for both at once."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.intervals import host_bootstrap, weighted_auc
from dark_halo_scope.evaluation.metrics import auc
from dark_halo_scope.paper.ablation_table import PairScores, differences, main, read_scores
from dark_halo_scope.paper.config import TableSettings

from .gate_results import write_gates, write_scores

PAIRS = 200
SETTINGS = TableSettings(bootstraps=200)
LABELS = np.repeat([1, 0], PAIRS)


def logits(separation: float, noise: float = 0.2) -> dict[str, np.ndarray]:
    """Scores of networks that see the same pairs with errors of their own, a positive `separation` above a control."""
    shared = np.random.default_rng(3).normal(size=(3, PAIRS))
    own = np.random.default_rng(int(100 * separation)).normal(scale=noise, size=(3, PAIRS))
    positive, control, hard = shared + own
    return {"positive": positive + separation, "control": control, "hard_negative": hard - 2 + separation}


def scores(folder: Path, name: str, separation: float) -> PairScores:
    return read_scores(write_scores(folder, name, logits(separation)))


def test_a_difference_is_ablation_less_base(tmp_path: Path) -> None:
    found = differences(scores(tmp_path, "base", 2.0), scores(tmp_path, "worse", 1.0), SETTINGS)
    areas = [auc(LABELS, np.concatenate([logits(s)["positive"], logits(s)["control"]])) for s in (1.0, 2.0)]
    assert found["auc"]["value"] == pytest.approx(areas[0] - areas[1])
    mean_p = [expit(logits(s)["hard_negative"]).mean() for s in (1.0, 2.0)]
    assert found["hard_negative_p"]["value"] == pytest.approx(mean_p[0] - mean_p[1])
    for entry in found.values():
        low, high = entry["interval"]
        assert low < entry["value"] < high < 0


def test_what_both_networks_share_cancels_from_the_interval(tmp_path: Path) -> None:
    base, other = scores(tmp_path, "base", 1.0), scores(tmp_path, "other", 1.01)
    low, high = differences(base, other, SETTINGS)["auc"]["interval"]
    one = host_bootstrap(
        weighted_auc, other.logits["positive"], other.logits["control"], other.host, np.random.default_rng(1), 200
    )
    assert high - low < 0.5 * (one.high - one.low)


def test_a_network_does_not_differ_from_itself(tmp_path: Path) -> None:
    base = scores(tmp_path, "base", 1.0)
    for entry in differences(base, base, SETTINGS).values():
        assert (entry["value"], *entry["interval"]) == (0, 0, 0)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    shuffled = np.random.default_rng(8).permutation(PAIRS)
    first = read_scores(write_scores(tmp_path, "first", logits(1.0)))
    second = read_scores(write_scores(tmp_path, "second", logits(1.0), order=shuffled))
    assert np.array_equal(first.task_id, second.task_id)
    assert np.array_equal(first.host, second.host)
    for kind, values in first.logits.items():
        assert np.array_equal(values, second.logits[kind])


def test_networks_that_scored_other_pairs_do_not_compare(tmp_path: Path) -> None:
    fewer = {kind: values[:-2] for kind, values in logits(1.0).items()}
    with pytest.raises(BadInputError, match="different pairs"):
        differences(scores(tmp_path, "base", 1.0), read_scores(write_scores(tmp_path, "fewer", fewer)), SETTINGS)


def test_scores_without_hard_negatives_are_refused(tmp_path: Path) -> None:
    kinds = {kind: values for kind, values in logits(1.0).items() if kind != "hard_negative"}
    with pytest.raises(BadInputError, match="no scores of hard_negative"):
        read_scores(write_scores(tmp_path, "base", kinds))


def test_a_pair_of_which_an_image_was_not_scored_is_left_out(tmp_path: Path) -> None:
    values = logits(1.0)
    values["control"] = values["control"][:-1]
    kept = read_scores(write_scores(tmp_path, "base", values))
    assert {len(found) for found in kept.logits.values()} == {PAIRS - 1} == {len(kept.host)}


def run(folder: Path, *names: str, weights: str = "a" * 64, **changes: object) -> tuple[list[dict[str, str]], str]:
    """Rows of the CSV file, and the Markdown; `changes` are of the last one's gates."""
    gates = [write_gates(folder, name, **(changes if name == names[-1] else {})) for name in names]
    found = [write_scores(folder, name, logits(1 + index), weights) for index, name in enumerate(names)]
    settings = {"titles": {names[-1]: "what it changes"}, "bootstraps": 50}
    outputs = [folder / "table.csv", folder / "table.md"]
    arguments = ["--settings", json.dumps(settings), "--gates", *gates, "--scores", *found, "--output", *outputs]
    main([str(argument) for argument in arguments])
    return list(csv.DictReader(outputs[0].open())), outputs[1].read_text()


def test_the_base_comes_first_and_has_no_difference(tmp_path: Path) -> None:
    rows, text = run(tmp_path, "base", "other")
    assert [row["generation"] for row in rows] == ["base", "other"]
    assert (rows[0]["auc_difference"], rows[0]["auc_difference_low"]) == ("", "")
    assert float(rows[1]["auc_difference_low"]) > 0
    assert "`other`: what it changes" in text
    assert f"{float(rows[1]['auc_difference']):+.3f}" in text


def test_scores_of_other_weights_than_the_gates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="base are of different weights"):
        run(tmp_path, "base", "other", weights="b" * 64)


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"split": "val"}, "split"), ({"inputs": {"packed": {"sha256": "1" * 64}}}, "packed images")],
)
def test_ablations_that_were_gated_otherwise_are_refused(tmp_path: Path, changes: dict, what: str) -> None:
    with pytest.raises(BadInputError, match=f"other differ in {what} from the others"):
        run(tmp_path, "base", "other", **changes)
