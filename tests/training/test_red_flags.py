"""Red flags and checkpoints of the plan: raised when due, and only then."""

from typing import Any

import pytest
from pydantic import ValidationError

from dark_halo_scope.training.config import RedFlagSettings
from dark_halo_scope.training.red_flags import final_checkpoint, mid_training_checkpoint, red_flags

PLAN = RedFlagSettings()


def gates(core: float = 0.5, annulus: float = 0.9, hard: float = 0.04, verdict: str = "pass") -> dict[str, Any]:
    values = {"G1": core, "G3": annulus, "G4": hard}
    return {"gates": {name: {"value": value} for name, value in values.items()}, "verdict": verdict, "remedies": {}}


def entry(epoch: int = 16, auc: float = 0.95, hard: float = 0.04, gap: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "val_auc": auc,
        "train_loss": 0.3,
        "losses_compare": True,
        "val_loss_epoch_mix": 0.3 + gap,
        "mean_p": {"positive": 0.8, "control": 0.1, "hard_negative": hard},
        "hard_negative_fpr_at_0.5": hard,
        **more,
    }


def names(*history: dict[str, Any], settings: RedFlagSettings = PLAN) -> list[str]:
    return [record["name"] for record in red_flags(history, settings)]


def test_a_healthy_epoch_raises_nothing() -> None:
    assert names(entry(gates=gates())) == []


@pytest.mark.parametrize(
    ("measured", "flag"),
    [({"core": 0.71}, "core_auc"), ({"annulus": 0.64}, "annulus_auc"), ({"hard": 0.16}, "hard_negative_mean_p")],
)
def test_gates_raise_flags_only_from_epoch_15_on(measured: dict[str, float], flag: str) -> None:
    assert names(entry(epoch=15, gates=gates(**measured))) == [flag]
    assert names(entry(epoch=14, gates=gates(**measured))) == []


def test_hard_negatives_are_watched_in_epochs_without_gates_too() -> None:
    assert names(entry(hard=0.2)) == ["hard_negative_mean_p"]


def test_gates_with_too_few_pairs_raise_nothing() -> None:
    unmeasured = {"gates": {name: {"value": None} for name in ("G1", "G3", "G4")}, "verdict": "fail", "remedies": {}}
    assert names(entry(gates=unmeasured)) == []


def test_a_gap_of_losses_raises_a_flag_at_any_time() -> None:
    assert names(entry(epoch=0, gap=0.31)) == ["loss_gap"]
    assert names(entry(epoch=0, gap=-0.31)) == []
    assert names(entry(epoch=0, gap=0.31, losses_compare=False)) == []


def test_a_fall_from_the_best_auc_raises_a_flag() -> None:
    assert names(entry(0, 0.9), entry(1, 0.95), entry(2, 0.89)) == ["auc_drop"]
    assert names(entry(0, 0.9), entry(1, 0.95), entry(2, 0.91)) == []


def test_an_auc_that_stays_at_one_half_raises_a_flag() -> None:
    assert names(entry(0, 0.5), entry(1, 0.51)) == []
    assert names(entry(0, 0.5), entry(1, 0.51), entry(2, 0.49)) == ["auc_stuck"]


def test_training_images_that_are_known_by_heart_raise_a_flag() -> None:
    assert names(entry(auc=0.90, train_auc=0.96)) == ["auc_gap"]
    assert names(entry(auc=0.90, train_auc=0.94)) == []
    assert names(entry(auc=0.96, train_auc=0.90)) == []
    assert names(entry(auc=0.90, train_auc=0.94), settings=RedFlagSettings(auc_gap=0.03)) == ["auc_gap"]


def test_lenses_of_the_sky_raise_no_flag_of_hard_negatives() -> None:
    assert names(entry(mean_p={"positive": 0.6, "negative": 0.4})) == []


def test_a_flag_stops_only_where_the_configuration_says_so() -> None:
    history = [entry(gap=0.5)]
    assert [record["stops"] for record in red_flags(history, PLAN)] == [False]
    assert [record["stops"] for record in red_flags(history, RedFlagSettings(stop=("loss_gap",)))] == [True]
    with pytest.raises(ValidationError, match="unknown flag"):
        RedFlagSettings(stop=("nonsense",))


def test_a_record_says_what_was_seen_and_what_to_do() -> None:
    (record,) = red_flags([entry(gates=gates(core=0.8))], PLAN)
    assert (record["value"], record["threshold"], record["epoch"]) == (0.8, 0.70, 16)
    assert "centre degradation" in record["advice"]


def test_day_3_continues_where_all_numbers_hold() -> None:
    assert mid_training_checkpoint([entry(gates=gates())])["decision"] == "continue"


def test_day_3_advises_centre_degradation_where_the_core_stalls() -> None:
    record = mid_training_checkpoint([entry(gates=gates(core=0.8))])
    assert "centre degradation" in record["decision"]
    assert [item["met"] for item in record["items"]] == [True, False, True]


def test_day_5_proceeds_on_a_pass_and_leaves_anchors_to_their_own_rule() -> None:
    record = final_checkpoint(entry(), gates())
    assert record["decision"].startswith("proceed")
    assert {item["name"]: item["met"] for item in record["items"]}["tier_a_recall"] is None


def test_day_5_iterates_on_a_failed_gate() -> None:
    failed = gates(verdict="fail") | {"remedies": {"G2": "raise the ratio"}}
    record = final_checkpoint(entry(), failed)
    assert record["decision"].startswith("iterate")
    assert record["remedies"] == {"G2": "raise the ratio"}
