"""A frozen finder: any later change of weights, preprocessing, thresholds or code is refused, and says what changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dark_halo_scope.core.crash import VARIABLE
from dark_halo_scope.core.errors import BadInputError, ConfigError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.evaluation import freeze_model
from dark_halo_scope.evaluation.freeze import (
    Frozen,
    FrozenChangedError,
    check_measured_with,
    load_frozen,
    require_frozen,
)
from dark_halo_scope.evaluation.frozen_behaviour import check_behaviour, probe_images
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.pairs import Predict

from .packed_files import write_model

LIB = Path(__file__).resolve().parents[2] / "lib"
CARD, BEST, VALIDATION = Path("frozen.json"), Path("best.json"), Path("validation.json")


def threshold(logit: float | None, status: str = "measured") -> dict[str, Any]:
    return {"logit": logit, "status": status}


def write_validation(**changes: Any) -> None:
    content = {
        "generation": "real_resnet18",
        "model_sha256": read_json(BEST)["weights"]["sha256"],
        "packed_sha256": "b" * 64,
        "thresholds": {"p0.5": threshold(0.0), "fpr0.01": threshold(2.5), "fpr0.001": threshold(None, "too few")},
        "calibration": {
            "calibrators": {"platt": {"slope": 1.0, "intercept": -2.0}},
            "prevalence": 0.01,
            "test": {"ece": 0.01},
        },
        "verdicts": {"minimum": "met"},
        **changes,
    }
    write_json(VALIDATION, sealed(content))


def freeze(**settings: Any) -> Frozen:
    arguments = ["--model", str(BEST), "--validation", str(VALIDATION), "--output", str(CARD), "--device", "cpu"]
    freeze_model.main([*arguments, "--settings", json.dumps(settings)])
    return require_frozen(CARD, BEST)


def edit(path: Path, **changes: Any) -> None:
    write_json(path, {**read_json(path), **changes})


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Frozen:
    monkeypatch.chdir(tmp_path)
    write_model(BEST)
    write_validation()
    return freeze()


def predict_of_best() -> Predict:
    import torch

    from dark_halo_scope.models.predict import predictor
    from dark_halo_scope.models.weights import load_model

    model, preprocess, _ = load_model(BEST)
    return predictor(model, preprocess, torch.device("cpu"))


def test_a_card_gives_thresholds_as_logits_and_the_calibration(frozen: Frozen) -> None:
    assert frozen.thresholds == {"p0.5": 0.0, "fpr0.01": 2.5}
    assert frozen.threshold("fpr0.01") == 2.5
    assert frozen.weights_sha256 == read_json(BEST)["weights"]["sha256"]
    assert frozen.calibration == {"calibrators": {"platt": {"slope": 1.0, "intercept": -2.0}}, "prevalence": 0.01}
    with pytest.raises(BadInputError, match=r"without the threshold fpr0\.001: too few"):
        frozen.threshold("fpr0.001")
    with pytest.raises(BadInputError, match=r"no threshold p0\.9; there are: .*p0\.5"):
        frozen.threshold("p0.9")


def test_freezing_again_without_a_change_gives_the_same_bytes(frozen: Frozen) -> None:
    before = CARD.read_bytes()
    assert freeze().sha256 == frozen.sha256
    assert CARD.read_bytes() == before


def test_other_weights_are_refused(frozen: Frozen) -> None:
    import torch

    from dark_halo_scope.models.weights import load_model, save_model

    model, preprocess, _ = load_model(BEST)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    write_json(BEST, save_model(BEST, model, preprocess, {}))
    with pytest.raises(FrozenChangedError, match="its weights changed since"):
        require_frozen(CARD, BEST)


def test_weights_that_were_overwritten_in_place_are_refused(frozen: Frozen) -> None:
    weights = Path(read_json(BEST)["weights"]["uri"])
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(FrozenChangedError, match="are not those that were frozen"):
        require_frozen(CARD, BEST)


@pytest.mark.parametrize(
    ("key", "change"),
    [("preprocessing", {"clip_high": 5.0}), ("model", {"crop_pix": 32}), ("meta", {"mean": [9.0, 9.0]})],
)
def test_another_preprocessing_crop_or_scaling_of_metadata_is_refused(
    frozen: Frozen, key: str, change: dict[str, Any]
) -> None:
    edit(BEST, **{key: {**read_json(BEST)[key], **change}})
    with pytest.raises(FrozenChangedError, match=f"its {key} changed since"):
        require_frozen(CARD, BEST)


def test_what_best_json_says_of_its_training_does_not_matter(frozen: Frozen) -> None:
    edit(BEST, val_auc=0.123, title="another")
    assert require_frozen(CARD, BEST).sha256 == frozen.sha256


def test_a_threshold_that_was_edited_on_the_card_is_refused(frozen: Frozen) -> None:
    card = read_json(CARD)
    card["thresholds"]["fpr0.01"]["logit"] = 1.0
    write_json(CARD, card)
    with pytest.raises(CorruptDataError, match="was changed after the finder was frozen"):
        load_frozen(CARD)
    # Also where whoever edited it seals it anew.
    write_json(CARD, sealed({key: value for key, value in card.items() if key != "content_sha256"}))
    with pytest.raises(CorruptDataError, match="does not have the name of its content"):
        load_frozen(CARD)


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": {"p0.5": threshold(0.0), "fpr0.01": threshold(2.0)}},
        {"calibration": {"calibrators": {"platt": {"slope": 2.0, "intercept": 0.0}}, "prevalence": 0.01}},
        {"packed_sha256": "c" * 64},
    ],
    ids=["thresholds", "calibration", "images that thresholds were chosen on"],
)
def test_a_finder_is_frozen_as_another_only_where_the_settings_say_so(frozen: Frozen, changes: dict[str, Any]) -> None:
    name = frozen.sha256[:16]
    write_validation(**changes)
    # As Snakemake does before it runs a rule again.
    CARD.unlink()
    with pytest.raises(FrozenChangedError, match=f"was frozen before, as {name}"):
        freeze()
    assert not CARD.exists()
    again = freeze(supersedes=[name])
    assert again.sha256 != frozen.sha256
    assert again.card["supersedes"] == [name]
    # What was measured with the first card is not of this one.
    with pytest.raises(FrozenChangedError, match=f"measured with the card {name}"):
        check_measured_with(again, {"frozen_sha256": frozen.sha256}, Path("recovery.json"))


def test_a_laxer_comparison_of_answers_makes_another_card(frozen: Frozen) -> None:
    """Else a card that forgives any change of code would take the first one's name, and its place."""
    with pytest.raises(FrozenChangedError, match="was frozen before"):
        freeze(probe_tolerance=0.2)
    with pytest.raises(ConfigError, match="probe_tolerance"):
        freeze(probe_tolerance=1e6)


def test_a_killed_freeze_is_on_record(frozen: Frozen) -> None:
    """The copy comes first: without it, the next run could freeze another finder unasked."""
    folder, name = CARD.with_suffix(""), f"{frozen.sha256[:16]}.json"
    shutil.rmtree(folder)
    command = [sys.executable, "-m", "dark_halo_scope.evaluation.freeze_model", "--model", str(BEST)]
    command += ["--validation", str(VALIDATION), "--output", str(CARD), "--device", "cpu"]
    CARD.unlink()
    killed = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(LIB), VARIABLE: f"after_rename:{name}"}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert (folder / name).exists()
    assert not CARD.exists()
    assert freeze().sha256 == frozen.sha256


def test_other_numbers_of_the_test_split_do_not_make_another_card(frozen: Frozen) -> None:
    write_validation(verdicts={"minimum": "not met"}, recall={"A": 0.1})
    assert freeze().sha256 == frozen.sha256


def test_results_without_a_card_are_refused(frozen: Frozen) -> None:
    check_measured_with(frozen, {"frozen_sha256": frozen.sha256}, Path("recovery.json"))
    with pytest.raises(FrozenChangedError, match="measured with no card"):
        check_measured_with(frozen, {}, Path("recovery.json"))


def test_a_validation_of_other_weights_is_not_frozen(frozen: Frozen) -> None:
    write_validation(model_sha256="f" * 64)
    with pytest.raises(BadInputError, match=r"of other weights than best\.json"):
        freeze()


def test_an_edited_validation_is_not_frozen(frozen: Frozen) -> None:
    edit(VALIDATION, verdicts={"minimum": "not met"})
    with pytest.raises(CorruptDataError, match="is not what validate_finder wrote"):
        freeze()


def test_a_file_that_is_no_card_is_named(frozen: Frozen) -> None:
    with pytest.raises(BadInputError, match=r"best\.json is not the card of a frozen finder"):
        load_frozen(BEST)


def test_a_network_that_answers_as_it_did_passes(frozen: Frozen) -> None:
    check_behaviour(frozen, predict_of_best())
    assert len(set(np.round(frozen.card["behaviour"]["logits"], 6))) > 1


def test_edited_code_that_changes_logits_is_refused(frozen: Frozen) -> None:
    predict = predict_of_best()

    def edited(images: Any, rows: Any, /, controls: Any = None) -> Any:
        return predict(images, rows) + 0.1

    with pytest.raises(FrozenChangedError, match=r"differs by 0\.1, 0\.02 is allowed"):
        check_behaviour(frozen, edited)

    def broken(images: Any, rows: Any, /, controls: Any = None) -> Any:
        return np.full(len(images), np.nan)

    with pytest.raises(FrozenChangedError, match="differs by nan"):
        check_behaviour(frozen, broken)


def test_probes_are_the_same_images_everywhere() -> None:
    images = probe_images(3, 64)
    assert images.shape == (3, 3, 64, 64)
    assert np.array_equal(images, probe_images(3, 64))
    # Each has a core that stands above its own background.
    assert (images[:, :, 31:33, 31:33].mean(axis=(2, 3)) > 5 * images[:, :, :8, :8].std(axis=(2, 3))).all()


def test_whoever_reads_a_card_needs_no_torch() -> None:
    code = "import sys, dark_halo_scope.evaluation.freeze; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
