"""Recall of known lenses: counted right, by group, with exact intervals, and never where it was not measured."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_path
from dark_halo_scope.evaluation import evaluate_anchors, score_anchors
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.anchors import (
    COMPARED,
    Threshold,
    anchor_table,
    auc_against,
    comparison_samples,
    groups,
    measure_anchors,
    share_above,
    thresholds,
)
from dark_halo_scope.evaluation.score_table import read_scores
from dark_halo_scope.images.cutouts import Stored, write_cutouts

from . import toys
from .packed_files import write_model
from .score_rows import negative_rows, write_scores

SETTINGS = AnchorEvaluationSettings()
HALF = Threshold("p0.5", 0.5)


def anchors(count: int = 40, seed: int = 3) -> pa.Table:
    """A list of known lenses, some of a stress list, with scores."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0, 1, count)
    return pa.table(
        {
            "name": [f"lens{i:03d}" for i in range(count)],
            "ra": rng.uniform(0, 360, count),
            "dec": rng.uniform(-20, 30, count),
            "tier_grade": ["A" if i % 3 else "B" for i in range(count)],
            "tier_gen5_prime": ["A" if i % 4 == 0 else None for i in range(count)],
            "stress": [i % 10 == 9 for i in range(count)],
            "discovery": ["machine_learning_this_survey" if i % 2 else "spectroscopy" for i in range(count)],
            "theta_e_arcsec": pa.array([None if i % 5 == 0 else 0.3 + 0.1 * i for i in range(count)], pa.float64()),
            "split": ["test" if i % 2 else "train" for i in range(count)],
            "logit": np.log(score / (1 - score)),
            "score": score,
            "cutout_row": np.arange(count),
        }
    )


def test_twenty_of_fifty_is_0_26_to_0_55() -> None:
    scores = np.repeat([0.9, 0.1], [20, 30])
    entry = share_above(scores, HALF, 0.95)
    assert (entry["value"], entry["k"], entry["n"], entry["status"]) == (0.4, 20, 50, "measured")
    assert [round(bound, 2) for bound in entry["interval"]] == [0.26, 0.55]


def test_a_score_at_the_threshold_is_a_detection() -> None:
    assert share_above(np.array([0.5, np.nextafter(0.5, 0)]), HALF, 0.95)["k"] == 1


def test_a_threshold_that_could_not_be_measured_gives_no_recall_and_says_why() -> None:
    points = [{"fpr_target": 0.001, "threshold": None, "status": "not measurable: 3 false positives"}]
    cut = thresholds((0.5,), points)[-1]
    entry = share_above(np.ones(9), cut, 0.95)
    assert cut.name == "fpr0.001"
    assert (entry["value"], entry["interval"], entry["n"]) == (None, None, 9)
    assert entry["status"] == "not measurable: 3 false positives"


def test_a_group_without_anybody_is_not_measurable() -> None:
    entry = share_above(np.empty(0), HALF, 0.95)
    assert (entry["value"], entry["n"], entry["status"]) == (None, 0, "not measurable: there is none")


def test_operating_points_without_a_status_are_refused() -> None:
    with pytest.raises(BadInputError, match="lacks 'status'"):
        thresholds((0.5,), [{"fpr_target": 0.1, "threshold": 0.3}])


def test_every_scheme_divides_the_headline_and_stress_lists_are_in_none() -> None:
    rows = anchors()
    members = groups(rows, SETTINGS.theta_e_edges)
    stress = np.array(rows["stress"].to_pylist())
    assert members["overall"]["headline"].tolist() == (~stress).tolist()
    for scheme in ("tier_grade", "tier_gen5_prime", "discovery", "split", "theta_e"):
        assert np.sum(list(members[scheme].values()), axis=0).tolist() == (~stress).astype(int).tolist(), scheme
    assert members["stress"]["all"].tolist() == stress.tolist()


def test_lenses_found_by_machine_learning_in_these_images_are_left_out_of_not_circular() -> None:
    rows = anchors()
    measured = measure_anchors(rows, {}, {}, [HALF], SETTINGS)
    headline, independent = (measured["recall"]["overall"][name]["p0.5"]["n"] for name in ("headline", "not_circular"))
    found_by_machine = measured["recall"]["discovery"]["machine_learning_this_survey"]["p0.5"]["n"]
    assert headline == independent + found_by_machine
    assert any("circular" in note for note in measured["notes"])


def test_a_lens_without_theta_e_is_in_the_bin_unknown() -> None:
    rows = anchors()
    members = groups(rows, (0.5, 1.0))["theta_e"]
    assert list(members) == ["below 0.5", "[0.5,1)", "1 and above", "unknown"]
    at_half = groups(rows.set_column(7, "theta_e_arcsec", pa.array(np.full(40, 1.0))), (0.5, 1.0))["theta_e"]
    assert at_half["1 and above"].sum() == 36
    assert members["unknown"].sum() == 8


def test_a_list_that_knows_nothing_of_its_lenses_is_measured_as_unknown() -> None:
    bare = anchors().select(["name", "ra", "dec", "logit", "score", "cutout_row"])
    measured = measure_anchors(bare, {}, {}, [HALF], SETTINGS)
    assert measured["recall"]["discovery"]["unknown"]["p0.5"]["n"] == 40
    assert measured["counts"]["stress"] == 0
    assert anchor_table(bare)["tier_grade"].null_count == 40


def test_nobody_is_lost_between_the_list_and_the_counts() -> None:
    counts = measure_anchors(anchors(), {"no data in g": 3, "404": 2}, {}, [HALF], SETTINGS)["counts"]
    assert counts["listed"] == counts["scored"] + 5
    assert counts["scored"] == counts["headline"] + counts["stress"]
    assert counts["excluded"] == {"404": 2, "no data in g": 3}


def write_comparison(path: Path, model_sha256: str, kinds: dict[str, list[float]]) -> None:
    """scores.json of galaxies without lenses: scores by kind, `negative spiral` being a class of negatives.

    Every two controls are of one galaxy, that is the same image twice.
    """
    rows = [
        {
            "kind": text.partition(" ")[0],
            "control_kind": text.partition(" ")[2] or None,
            "score": score,
            "brickname": f"{number:04d}p000",
            "objid": i // 2 if text == "control" else i,
            "ra": 10.0,
            "dec": 0.0,
        }
        for number, (text, scores) in enumerate(kinds.items())
        for i, score in enumerate(scores)
    ]
    with attempt(path, "scores", "dark_halo_scope.evaluation.score", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(rows), work.prefix / "scores.parquet")
        work.publish(facts={"model_sha256": model_sha256, "split": "test"})


def test_contamination_is_the_share_of_each_kind_of_galaxy_above_the_same_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = {"positive": [0.9], "control": [0.6, 0.6, 0.2, 0.2], "negative spiral": [0.7, 0.8], "negative": [0.1]}
    write_comparison(Path("test.json"), "0" * 64, {**scores, "hard_negative": [0.5]})
    samples = comparison_samples(read_scores(load_manifest(Path("test.json")), labels=("control_kind",)))
    measured = measure_anchors(anchors(), {}, samples, [HALF], SETTINGS)
    assert {name: (entry["p0.5"]["k"], entry["p0.5"]["n"]) for name, entry in measured["contamination"].items()} == {
        "control": (1, 2),
        "negative": (2, 3),
        "negative spiral": (2, 2),
        "hard_negative": (1, 1),
    }


def test_confusers_are_compared_by_their_category_beside_all_negatives(tmp_path: Path) -> None:
    # Galaxies of N1 have no category.
    categories = pa.array(["edge_on_proxy", "ring_proxy", "edge_on_proxy", None, None], pa.string())
    rows = negative_rows(5, confuser_category=categories)
    table = read_scores(load_manifest(write_scores(tmp_path / "test.json", rows)), labels=tuple(COMPARED))
    contamination = measure_anchors(anchors(), {}, comparison_samples(table), [HALF], SETTINGS)["contamination"]
    counted = {name: shares["p0.5"]["n"] for name, shares in contamination.items() if name.startswith("confuser ")}
    assert counted == {"confuser edge_on_proxy": 2, "confuser ring_proxy": 1}
    assert contamination["negative"]["p0.5"]["n"] == 5


def test_the_auc_of_a_group_is_that_of_its_anchors_against_the_controls() -> None:
    rows, controls = anchors(), np.random.default_rng(5).beta(1, 3, 200)
    measured = measure_anchors(rows, {}, {"control": controls}, [HALF], SETTINGS)["auc"]["tier_grade"]["A"]
    mine = np.array(rows["score"])[
        [
            tier == "A" and not stress
            for tier, stress in zip(*(rows[n].to_pylist() for n in ("tier_grade", "stress")), strict=True)
        ]
    ]
    labels = np.repeat([1, 0], [len(mine), 200])
    assert measured["value"] == pytest.approx(roc_auc_score(labels, np.concatenate([mine, controls])))
    assert measured["interval"][0] < measured["value"] < measured["interval"][1]


def test_an_auc_without_controls_is_not_measurable() -> None:
    without = measure_anchors(anchors(), {}, {}, [HALF], SETTINGS)["auc"]["overall"]["headline"]
    assert (without["value"], without["interval"]) == (None, None)
    assert without["status"].startswith("not measurable")


def test_a_few_anchors_above_all_controls_do_not_prove_an_auc_of_one() -> None:
    few, many = np.array([0.8, 0.9, 0.95]), np.linspace(0.7, 0.9, 500)
    low, high = auc_against(few, np.linspace(0, 0.5, 400), 0.95)["interval"]
    assert (low, high) == (pytest.approx(0.0125 ** (1 / 3 + 1 / 400)), 1.0)
    assert auc_against(many, np.linspace(0, 0.5, 400), 0.95)["interval"][0] > 0.97
    assert auc_against(np.linspace(0, 0.5, 400), few, 0.95)["interval"] == pytest.approx([0.0, 1 - low])


def test_the_table_is_the_same_in_whatever_order_the_list_came() -> None:
    rows = anchors()
    assert anchor_table(rows.take(list(range(39, -1, -1)))).equals(anchor_table(rows))


# --- The commands -----------------------------------------------------------------------------------------------------


def write_list(path: Path, count: int = 8, size: int = toys.SIZE) -> None:
    """cutouts.json of a few lenses: the second has no cutout, the third no PSF, the fourth no light in z."""
    rng = np.random.default_rng(2)
    images = rng.normal(0, 0.05, (count, 3, size, size)).astype(np.float32)
    images[3, 2] = 0
    psfsize = np.full(count, toys.PSFSIZE)
    psfsize[2] = np.nan
    table = anchors(count).drop_columns(["logit", "score", "cutout_row"])
    table = table.append_column("psfsize_r", pa.array(psfsize)).append_column(
        "psfdepth_r", pa.array(np.full(count, 24.0))
    )
    stored = [Stored(image, None, None, 0.0) for image in images]
    stored[1] = Stored(None, "outside the footprint", None, None)
    with attempt(path, "cutouts", "dark_halo_scope.evaluation.score_anchors", {}, []) as work:
        write_cutouts(work.prefix, table, stored, size)
        work.publish(facts={"rows": count, "size": size})


def test_known_lenses_are_scored_with_their_conditions_and_the_others_are_kept_aside_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_list(Path("cutouts.json"))
    write_model(Path("best.json"))
    score_anchors.main(["--model", "best.json", "--cutouts", "cutouts.json", "--output", "anchor_scores.json"])
    manifest = load_manifest(Path("anchor_scores.json"), "scores")
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (8, 5, 3)
    assert manifest.facts["excluded"] == {"a band is missing": 1, "outside the footprint": 1, "psfsize_r unknown": 1}
    assert verified_path(manifest, "quarantine/scores.parquet").is_file()


def test_cutouts_larger_than_the_network_s_are_cropped_about_their_centre(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("best.json"))
    write_list(Path("large.json"), size=toys.SIZE + 9)
    score_anchors.main(["--model", "best.json", "--cutouts", "large.json", "--output", "scores.json"])
    assert load_manifest(Path("scores.json")).rows_out == 5
    write_list(Path("small.json"), size=toys.SIZE - 1)
    with pytest.raises(BadInputError, match="fewer than the 32 x 32"):
        score_anchors.main(["--model", "best.json", "--cutouts", "small.json", "--output", "scores.json"])


def test_anchors_are_evaluated_from_scores_of_one_network_into_a_result_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_list(Path("cutouts.json"), count=12)
    write_model(Path("best.json"))
    score_anchors.main(["--model", "best.json", "--cutouts", "cutouts.json", "--output", "anchor_scores.json"])
    sha256 = load_manifest(Path("anchor_scores.json")).facts["model_sha256"]
    write_comparison(Path("test.json"), sha256, {"control": np.linspace(0, 0.6, 50).tolist()})
    points = [
        {"fpr_target": 0.1, "threshold": 0.5, "status": "measured"},
        {"fpr_target": 0.001, "threshold": None, "status": "not measurable: too few negatives"},
    ]
    write_json(Path("performance.json"), {"model_sha256": sha256, "operating_points": points})
    inputs = ["--scores", "anchor_scores.json", "--performance", "performance.json", "--comparison", "test.json"]
    evaluate_anchors.main([*inputs, "--output", "anchors.json", "--table", "anchors.csv"])
    result = json.loads(Path("anchors.json").read_text())
    assert list(result["thresholds"]) == ["fpr0.001", "fpr0.1", "p0.3", "p0.5"]
    assert result["recall"]["overall"]["headline"]["fpr0.1"] == result["recall"]["overall"]["headline"]["p0.5"]
    assert result["counts"]["listed"] == 12
    lines = Path("anchors.csv").read_text().splitlines()
    assert lines[0].startswith(
        "name,ra,dec,tier_grade,tier_gen5_prime,stress,discovery,theta_e_arcsec,split,logit,score"
    )
    assert len(lines) == 1 + result["counts"]["scored"]

    write_comparison(Path("test.json"), "0" * 64, {"control": [0.1, 0.2]})
    with pytest.raises(BadInputError, match="not of one network"):
        evaluate_anchors.main([*inputs, "--output", "anchors.json", "--table", "anchors.csv"])
