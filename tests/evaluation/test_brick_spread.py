"""What the AUCs of bricks promise: a bad brick is named, and an even survey shows what chance alone gives."""

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.evaluation.brick_spread import NOTE, measure_bricks, pair_scores
from dark_halo_scope.evaluation.intervals import evaluate, weighted_auc
from dark_halo_scope.evaluation.realism_config import BrickSettings

SETTINGS = BrickSettings(min_pairs=20, permutations=100, worst=2)
HOSTS, REPLICATES = 30, 2


def _scores(bricks: int = 12, bad: int | None = None, seed: int = 0) -> pa.Table:
    """Positives and controls, 60 pairs a brick; in the brick `bad` the network knows nothing."""
    rng = np.random.default_rng(seed)
    each = HOSTS * REPLICATES
    brick = np.repeat(np.arange(bricks), each)
    objid = np.tile(np.repeat(np.arange(HOSTS), REPLICATES), bricks)
    logit = {"positive": rng.normal(1.5, 1, len(brick)), "control": rng.normal(0, 1, len(brick))}
    if bad is not None:
        logit["positive"][brick == bad] -= 1.5
    tables = [
        pa.table(
            {
                "task_id": [f"task{place:05d}" for place in range(len(brick))],
                "kind": [kind] * len(brick),
                "brickname": [f"{number:04d}p000" for number in brick],
                "objid": objid,
                "ra": np.zeros(len(brick)),
                "dec": np.zeros(len(brick)),
                "logit": values,
            }
        )
        for kind, values in logit.items()
    ]
    return pa.concat_tables(tables)


def _measured(scores: pa.Table, settings: BrickSettings = SETTINGS) -> dict:
    return measure_bricks(scores, settings, 100, 0.95, np.random.default_rng(1))


def test_each_brick_has_the_auc_of_its_own_pairs_and_that_of_all_others() -> None:
    scores = _scores()
    rows, positive, control = pair_scores(scores)
    here = np.array([name == "0003p000" for name in rows["brickname"].to_pylist()])
    entry = _measured(scores)["bricks"]["0003p000"]
    assert entry["value"] == evaluate(weighted_auc, positive[here], control[here])
    assert entry["without"] == evaluate(weighted_auc, positive[~here], control[~here])
    assert (entry["n"], entry["hosts"]) == (60, 30)
    assert entry["interval"][0] < entry["value"] < entry["interval"][1]


def test_bricks_that_differ_by_chance_spread_as_chance_has_it() -> None:
    result = _measured(_scores())
    low, high = result["std"]["expected"]["interval"]
    assert low <= result["std"]["value"] <= high
    assert result["std"]["p_value"] > 0.05


def test_a_brick_where_the_network_fails_is_named_and_spreads_more_than_chance() -> None:
    result = _measured(_scores(bad=4))
    assert result["worst"][0] == "0004p000"
    assert len(result["worst"]) == 2
    assert result["std"]["value"] > result["std"]["expected"]["interval"][1]
    assert result["std"]["p_value"] < 0.02
    assert result["bricks"]["0004p000"]["without"] > result["auc"]


def test_bricks_with_few_pairs_are_counted_and_left_out() -> None:
    scores = _scores(bricks=3)
    few = pa.array(
        [
            name != "0002p000" or int(task[4:]) < 130
            for name, task in zip(scores["brickname"].to_pylist(), scores["task_id"].to_pylist(), strict=True)
        ]
    )
    result = _measured(scores.filter(few))
    assert result["counts"] == {"pairs": 130, "bricks": 3, "bricks_measured": 2}
    assert "0002p000" not in result["bricks"]


def test_a_single_brick_has_no_spread_and_says_so() -> None:
    result = _measured(_scores(bricks=1))
    assert result["std"]["value"] is None
    assert result["std"]["status"] == "not measurable: fewer than two bricks have 20 pairs"


def test_positives_without_their_control_do_not_count() -> None:
    scores = _scores(bricks=2)
    rows, positive, control = pair_scores(scores.slice(0, 180))
    assert rows.num_rows == len(positive) == len(control) == 60


def test_replicates_of_a_host_stay_together_when_hosts_change_places() -> None:
    """A host whose arcs all fail is one draw of chance, not two: its pairs may not be spread over bricks."""
    scores = _scores()
    bad_host = np.array([number % 10 == 0 for number in scores["objid"].to_pylist()])
    logit = np.asarray(scores["logit"]) - 4.0 * (bad_host & np.equal(scores["kind"].to_pylist(), "positive"))
    result = _measured(scores.set_column(scores.schema.get_field_index("logit"), "logit", pa.array(logit)))
    independent = _measured(_scores())
    assert result["std"]["expected"]["mean"] > independent["std"]["expected"]["mean"]


@pytest.mark.parametrize("min_pairs", [0, 1])
def test_a_brick_needs_two_pairs(min_pairs: int) -> None:
    with pytest.raises(ValueError, match="min_pairs"):
        BrickSettings(min_pairs=min_pairs)


def test_the_result_says_that_controls_count_once_for_each_arc() -> None:
    """Its AUC is of pairs, that of performance.json of images."""
    scores = _scores()
    positives, controls = (
        scores.filter(pa.compute.equal(scores["kind"], kind))["logit"].to_numpy() for kind in ("positive", "control")
    )
    result = measure_bricks(scores, SETTINGS, 20, 0.95, np.random.default_rng(0))
    assert result["auc"] == pytest.approx(evaluate(weighted_auc, positives, controls))
    assert result["note"] == NOTE
