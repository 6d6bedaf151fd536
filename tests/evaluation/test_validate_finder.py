"""validation.json: measured on a test split that chose nothing, tiers and confusers apart, with the plan's verdicts."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation import validate_finder
from dark_halo_scope.evaluation.gate_check import SEAL, seal
from dark_halo_scope.evaluation.target_numbers import read_artifacts

from .real_scores import CATEGORIES, draw_images, write_both, write_scores

QUICK = {"calibration": {"negatives": ["negative"], "bootstraps": 30, "simulations": 10}, "top_k": 20}
HISTORY = {"epochs": [{"epoch": 0}], "decisions": []}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("best.json"), {"weights": {"sha256": "a" * 64}})
    write_json(Path("history.json"), HISTORY)
    write_both()


def run(output: str = "validation.json", extra: tuple[str, ...] = (), **settings: object) -> dict:
    arguments = ["--model", "best.json", "--val", "val.json", "--test", "test.json", "--history", "history.json"]
    given = json.dumps({**QUICK, **settings})
    validate_finder.main([*arguments, "--output", output, "--top", "top.csv", "--settings", given, *extra])
    return read_json(Path(output))


def logits_of(kind: str, column: str | None = None, value: str | None = None) -> np.ndarray:
    rows = draw_images()
    keep = pc.equal(rows["kind"], kind)
    if column is not None:
        keep = pc.and_(keep, pc.fill_null(pc.equal(rows[column], value), False))
    return rows.filter(keep)["logit"].to_numpy()


@pytest.mark.usefixtures("inputs")
def test_tiers_are_measured_apart_with_their_own_counts_and_intervals() -> None:
    result = run()
    for tier in ("A", "B"):
        logits = logits_of("positive", "tier", tier)
        entry = result["recall"]["tier"][tier]["p0.5"]
        assert entry["value"] == np.mean(logits >= 0)
        assert entry["n"] == len(logits) == 100
        assert entry["interval"][0] < entry["value"] < entry["interval"][1]
    assert result["auc"]["tier"]["A"]["value"] > result["auc"]["tier"]["B"]["value"] + 0.005
    expected = stats.mannwhitneyu(logits_of("positive", "tier", "A"), logits_of("negative")).statistic / (100 * 3000)
    assert result["auc"]["tier"]["A"]["value"] == pytest.approx(expected)


@pytest.mark.usefixtures("inputs")
def test_thresholds_come_from_val_and_are_the_same_whatever_the_test_split_says() -> None:
    first = run()
    val = draw_images(seed=2, split="val", first_cell=128)
    logits = val.filter(pc.equal(val["kind"], "negative"))["logit"].to_numpy()
    chosen = first["thresholds"]["fpr0.01"]
    assert np.sum(logits >= chosen["logit"]) == 30
    assert chosen["val"]["fpr"]["value"] == 0.01
    assert first["thresholds"]["p0.5"]["logit"] == 0
    write_both(seed=9, separation=1.0)
    second = run()
    assert second["thresholds"] == first["thresholds"]
    assert second["calibration"]["calibrators"] == first["calibration"]["calibrators"]
    assert second["recall"]["overall"]["all"]["fpr0.01"] != first["recall"]["overall"]["all"]["fpr0.01"]


@pytest.mark.usefixtures("inputs")
def test_a_threshold_that_too_few_negatives_pass_is_no_threshold() -> None:
    entry = run()["thresholds"]["fpr0.001"]
    assert entry["logit"] is None
    assert "3 negatives pass" in entry["status"]


@pytest.mark.usefixtures("inputs")
def test_false_positives_are_given_for_each_confuser_and_pool() -> None:
    sample = run()["fpr"]["sample"]
    for category in CATEGORIES:
        logits = logits_of("negative", "confuser_category", category)
        assert sample[f"confuser {category}"]["p0.3"]["k"] == np.sum(logits >= np.log(0.3 / 0.7))
        assert sample[f"confuser {category}"]["p0.3"]["n"] == len(logits)
    assert sample["N1"]["p0.5"]["n"] + sample["N2"]["p0.5"]["n"] == sample["all"]["p0.5"]["n"] == 3000


@pytest.mark.usefixtures("inputs")
def test_the_survey_rate_weighs_each_negative_by_how_rarely_it_was_drawn() -> None:
    rows = draw_images()
    negative = rows.filter(pc.equal(rows["kind"], "negative"))
    # Confusers, drawn twice as often as the others, all pass; half of the others' rate is what the survey has.
    hard = pc.equal(negative["pool"], "N2").to_numpy(zero_copy_only=False)
    logits = np.where(hard, 5.0, -5.0)
    changed = rows.filter(pc.equal(rows["kind"], "positive"))
    place = negative.column_names.index("logit")
    negative = negative.set_column(place, "logit", pa.array(logits))
    write_scores(Path("test.json"), pa.concat_tables([changed, negative]), "test")
    result = run()
    assert result["fpr"]["sample"]["all"]["p0.5"]["value"] == pytest.approx(0.2)
    survey = result["fpr"]["survey"]["all"]["p0.5"]
    assert survey["value"] == pytest.approx(600 / 0.2 / (600 / 0.2 + 2400 / 0.1))
    assert survey["interval"][0] < survey["value"] < survey["interval"][1]


@pytest.mark.usefixtures("inputs")
def test_recall_without_lenses_that_machine_learning_found_here_stands_beside_the_whole() -> None:
    result = run()
    overall, discovery = result["recall"]["overall"], result["recall"]["discovery"]
    assert overall["all"]["p0.5"]["n"] == 200
    assert overall["not_circular"]["p0.5"]["n"] == discovery["other"]["p0.5"]["n"] == 100
    assert discovery["machine_learning_this_survey"]["p0.5"]["n"] == 100
    assert any("circular" in note for note in result["notes"])
    assert any("rates of the pool of negatives, not of the sky" in note for note in result["notes"])


@pytest.mark.usefixtures("inputs")
def test_strata_of_psf_depth_exposures_and_type_hold_every_image_once() -> None:
    strata = run()["strata"]
    assert set(strata) == {"psfsize_r", "psfdepth_r", "nobs_z", "type"}
    for parts in strata.values():
        assert sum(part["positives"] for part in parts) == 200
        assert sum(part["negatives"] for part in parts) == 3000
    assert [part["name"] for part in strata["type"]] == ["DEV", "REX", "SER"]
    assert strata["type"][0]["recall"]["p0.5"]["interval"] is not None
    assert set(strata["type"][0]["recall"]) == {"p0.5", "fpr0.01"}


@pytest.mark.usefixtures("inputs")
def test_the_plans_thresholds_are_judged_by_whole_intervals() -> None:
    result = run()
    targets = {entry["target"]: entry for entry in result["targets"]}
    assert {"minimum_tier_a_recall", "minimum_tier_a_auc", "minimum_contaminant_fpr", "minimum_ece"} <= set(targets)
    assert targets["minimum_tier_a_recall"]["value"] == result["recall"]["tier"]["A"]["p0.5"]["value"]
    assert targets["minimum_stability"]["verdict"] == "met"
    assert targets["publication_strata"]["value"] == 3
    assert targets["publication_confusers_reported"]["value"] == 4
    assert result["verdicts"]["minimum"] == "met"
    write_both(separation=0.2)
    assert run()["verdicts"]["minimum"] == "not met"


@pytest.mark.usefixtures("inputs")
def test_targets_read_the_very_numbers_from_the_file() -> None:
    folder = Path("results/real_resnet18")
    folder.mkdir(parents=True)
    run(str(folder / "validation.json"))
    assert set(read_artifacts([folder / "validation.json"])["real_resnet18"]) == {"validation"}


@pytest.mark.usefixtures("inputs")
def test_a_flag_of_collapse_in_training_is_not_stable() -> None:
    write_json(Path("history.json"), {**HISTORY, "decisions": [{"kind": "red flag", "name": "auc_stuck"}]})
    result = run()
    verdicts = {entry["target"]: entry["verdict"] for entry in result["targets"]}
    assert verdicts["minimum_stability"] == "not met"
    assert result["verdicts"]["minimum"] == "not met"


@pytest.mark.usefixtures("inputs")
def test_scores_of_another_network_or_split_are_refused() -> None:
    write_json(Path("best.json"), {"weights": {"sha256": "c" * 64}})
    with pytest.raises(BadInputError, match=r"another network than best\.json"):
        run()
    write_json(Path("best.json"), {"weights": {"sha256": "a" * 64}})
    with pytest.raises(BadInputError, match="split val, not of test"):
        validate_finder.main(
            [
                *("--model", "best.json", "--val", "val.json", "--test", "val.json"),
                "--output",
                "v.json",
                "--top",
                "t.csv",
            ]
        )
    write_scores(Path("other.json"), draw_images(), "train", model="c" * 64)
    with pytest.raises(BadInputError, match=r"other\.json are scores of another network"):
        run(extra=("--candidates", "other.json"))
    write_scores(Path("test.json"), draw_images(), "test", packed="d" * 64)
    with pytest.raises(BadInputError, match="other images"):
        run()


@pytest.mark.usefixtures("inputs")
def test_a_cell_of_the_sky_in_both_splits_is_refused() -> None:
    write_scores(Path("val.json"), draw_images(seed=2, split="val", first_cell=256), "val")
    with pytest.raises(CorruptDataError, match=r"39 HEALPix cells .* are in val and in test"):
        run()


@pytest.mark.usefixtures("inputs")
def test_a_split_without_lenses_is_refused() -> None:
    rows = draw_images()
    write_scores(Path("test.json"), rows.filter(pc.equal(rows["kind"], "negative")), "test")
    with pytest.raises(BadInputError, match="0 positives and 3000 negatives"):
        run()


@pytest.mark.usefixtures("inputs")
def test_too_few_lenses_to_calibrate_leave_no_probability_and_no_crash() -> None:
    write_scores(Path("val.json"), draw_images(positives=20, seed=2, split="val", first_cell=128), "val")
    result = run()
    assert result["calibration"]["calibrators"] is None
    assert "20 positives" in result["calibration"]["status"]
    verdicts = {entry["target"]: entry["verdict"] for entry in result["targets"]}
    assert verdicts["minimum_ece"] == "not measurable"
    with Path("top.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["probability"] == ""


@pytest.mark.usefixtures("inputs")
def test_candidates_are_the_highest_scores_with_a_link_to_look_at() -> None:
    run()
    rows = draw_images()
    best = np.sort(rows["logit"].to_numpy())[::-1][:20]
    with Path("top.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [float(row["logit"]) for row in found] == best.tolist()
    assert [int(row["rank"]) for row in found] == list(range(1, 21))
    first = found[0]
    assert first["category"] in ("Tier-A", "Tier-B")
    assert f"ra={float(first['ra']):.6f}" in first["viewer"]
    probabilities = [float(row["probability"]) for row in found]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.usefixtures("inputs")
def test_candidates_may_come_from_any_images_that_the_network_scored() -> None:
    write_scores(Path("parent.json"), draw_images(positives=5, negatives=50, seed=7, split="train"), "train")
    run(extra=("--candidates", "parent.json"), top_k=1000)
    with Path("top.csv").open(newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"train"}


@pytest.mark.usefixtures("inputs")
def test_the_same_scores_give_the_same_sealed_bytes() -> None:
    first = run("first.json")
    run("second.json")
    assert Path("first.json").read_bytes() == Path("second.json").read_bytes()
    assert first[SEAL] == seal(first)
