"""calibration.json: fitted on validation scores, judged on test scores, and enforced by another command."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation import calibrate, check_calibration
from dark_halo_scope.evaluation.check_calibration import CalibrationBlockedError

from .split_scores import draw_rows, write_scores

QUICK = {"bootstraps": 50, "simulations": 20}


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """val.json and test.json of a network whose log odds are half of what they should be, and shifted."""
    monkeypatch.chdir(tmp_path)
    write_scores(Path("val.json"), draw_rows(600, 1, "val", slope=0.5, offset=2.0), "val")
    write_scores(Path("test.json"), draw_rows(800, 2, "test", slope=0.5, offset=2.0), "test")


def run(output: str = "calibration.json", **settings: object) -> dict:
    given = json.dumps({**QUICK, **settings})
    calibrate.main(["--val", "val.json", "--test", "test.json", "--output", output, "--settings", given])
    return read_json(Path(output))


def check(**settings: object) -> None:
    given = json.dumps({**QUICK, **settings})
    check_calibration.main(["--calibration", "calibration.json", "--settings", given, "--output", "passed.json"])


@pytest.mark.usefixtures("scores")
def test_both_calibrations_beat_the_sigmoid_on_scores_they_never_saw() -> None:
    result = run()
    assert result["calibrators"]["platt"]["slope"] == pytest.approx(2.0, abs=0.3)
    measured = result["test"]["probabilities"]
    for method in ("platt", "isotonic"):
        assert measured[method]["ece"]["value"] < 0.05 < measured["raw"]["ece"]["value"]
        assert measured[method]["brier"]["value"] < result["test"]["constant"]["brier"]
        low, high = measured[method]["brier"]["interval"]
        assert low < measured[method]["brier"]["value"] < high
    assert result["test"]["constant"]["ece"] < 1e-9
    assert [entry["prevalence"] for entry in result["shifted"]] == [1e-4, 1 / 101]


@pytest.mark.usefixtures("scores")
def test_test_labels_do_not_reach_the_fit() -> None:
    fitted = run()
    rows = draw_rows(800, 2, "test", slope=0.5, offset=2.0)
    kinds = np.random.default_rng(0).permutation(rows["kind"].to_numpy(zero_copy_only=False))
    write_scores(Path("test.json"), rows.set_column(rows.column_names.index("kind"), "kind", pa.array(kinds)), "test")
    permuted = run()
    for key in ("calibrators", "prevalence", "val"):
        assert permuted[key] == fitted[key]
    assert permuted["test"] != fitted["test"]


@pytest.mark.usefixtures("scores")
def test_the_same_input_gives_the_same_bytes() -> None:
    run("first.json")
    run("second.json")
    assert Path("first.json").read_bytes() == Path("second.json").read_bytes()


@pytest.mark.usefixtures("scores")
def test_hard_negatives_join_only_by_choice_and_a_control_counts_once() -> None:
    write_scores(Path("val.json"), draw_rows(300, 1, "val", arcs_per_host=2), "val")
    assert run()["val"] == {"n": 900, "positives": 600, "negatives": 300, "prevalence": 2 / 3, "hosts": 300}
    with_hard = run(negatives=["control", "hard_negative"])
    assert with_hard["val"]["negatives"] == 900


@pytest.mark.usefixtures("scores")
def test_a_bad_calibration_blocks_only_where_the_configuration_says_so() -> None:
    result = run(blocking_method="raw")
    assert result["blocks"]["reasons"]
    assert not result["blocks"]["blocks"]
    check(blocking_method="raw")
    assert read_json(Path("passed.json"))["generation"] == "toy"
    assert run(blocking_method="raw", calibration_blocks=True)["blocks"]["blocks"]
    with pytest.raises(CalibrationBlockedError, match=r"has an ECE of 0\.\d+ over all rows, at most 0.1 is due"):
        check(blocking_method="raw", calibration_blocks=True)


@pytest.mark.usefixtures("scores")
def test_a_good_calibration_passes_a_check_that_blocks() -> None:
    assert run(calibration_blocks=True)["blocks"]["reasons"] == []
    check(calibration_blocks=True)
    assert Path("passed.json").exists()


@pytest.mark.usefixtures("scores")
def test_an_edited_file_or_other_settings_do_not_pass() -> None:
    result = run()
    with pytest.raises(CorruptDataError, match="other settings"):
        check(max_ece=0.5)
    write_json(Path("calibration.json"), result | {"prevalence": 0.01})
    with pytest.raises(CorruptDataError, match="not what calibrate wrote"):
        check()


@pytest.mark.usefixtures("scores")
def test_the_two_splits_are_not_exchanged_and_are_of_one_network() -> None:
    with pytest.raises(BadInputError, match="'test'; give those of 'val'"):
        calibrate.main(["--val", "test.json", "--test", "test.json", "--output", "calibration.json"])
    write_scores(Path("test.json"), draw_rows(800, 2, "test"), "test", model="c" * 64)
    with pytest.raises(BadInputError, match="different networks"):
        run()


@pytest.mark.usefixtures("scores")
def test_too_few_validation_scores_are_refused() -> None:
    write_scores(Path("val.json"), draw_rows(20, 1, "val"), "val")
    with pytest.raises(BadInputError, match="20 positives, and a calibration needs 50"):
        run()
