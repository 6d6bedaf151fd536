"""The command line: packed pairs in, best.json and history.json out."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from dark_halo_scope.core.errors import ConfigError, CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import load_model
from dark_halo_scope.training import train
from dark_halo_scope.training.history import read_history

from .toys import toy_settings, write_mined, write_packed, write_toy_split

# Of so few images any column's own AUC lies far from one half by chance.
LENIENT = {**toy_settings().model.model_dump(), "meta_auc_limit": 1.0}


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A packed dataset of two splits; the working directory is the results' parent."""
    monkeypatch.chdir(tmp_path)
    splits = {
        "train": write_toy_split(tmp_path / "train", 16, 1, negatives=4),
        "val": write_toy_split(tmp_path / "val", 8, 2, negatives=4),
    }
    return write_packed(Path("results/datasets/toys/packed.json"), splits)


def arguments(packed: Path, **changes: object) -> list[str]:
    settings = toy_settings(**changes).model_dump_json()
    results = Path("results/gen5_prime/main")
    return [
        *("--packed", str(packed), "--settings", settings, "--device", "cpu", "--threads", "1"),
        *("--output", str(results / "best.json"), "--history", str(results / "history.json")),
        *("--checkpoints", str(results / "checkpoints"), "--generation", "gen5_prime", "--stage", "main"),
    ]


BEST, HISTORY = Path("results/gen5_prime/main/best.json"), Path("results/gen5_prime/main/history.json")


def test_a_run_leaves_a_model_that_scores_and_a_history(packed: Path) -> None:
    train.main(arguments(packed))
    best, history = json.loads(BEST.read_text()), json.loads(HISTORY.read_text())
    kept = next(entry for entry in history["epochs"] if entry["epoch"] == best["epoch"])
    assert best["val_auc"] == kept["val_auc"]
    assert (best["generation"], best["stage"], best["dataset"]) == ("gen5_prime", "main", "toys")
    assert best["training"] == toy_settings().model_dump(mode="json")
    model, preprocess, _ = load_model(BEST)
    val = open_packed(packed, "val")
    logits = predictor(model, preprocess, torch.device("cpu"))(val.positive, val.rows)
    assert np.isfinite(logits).all()
    assert len(logits) == 8


def test_the_same_run_again_gives_the_same_bytes_and_leaves_no_checkpoints(packed: Path) -> None:
    train.main(arguments(packed))
    first = BEST.read_bytes(), HISTORY.read_bytes()
    assert not any(path.is_dir() for path in BEST.parent.glob("checkpoints/*"))
    train.main(arguments(packed))
    assert (BEST.read_bytes(), HISTORY.read_bytes()) == first


def test_other_settings_do_not_resume_these_checkpoints(packed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "save_model", lambda *_: pytest.exit("stop before the results"))
        with pytest.raises(pytest.exit.Exception):
            train.main(arguments(packed))
    with caplog.at_level(logging.INFO):
        train.main(arguments(packed, seed=7))
        assert "Resuming" not in caplog.text
        train.main(arguments(packed))
        assert "Resuming" in caplog.text


def test_a_flipped_byte_in_a_packed_array_stops_before_training(packed: Path) -> None:
    manifest = load_manifest(packed)
    array = Path(manifest.uri) / "train" / "control.npy"
    data = bytearray(array.read_bytes())
    data[5000] ^= 1
    array.chmod(0o644)
    array.write_bytes(data)
    with pytest.raises(CorruptDataError, match="control"):
        train.main(arguments(packed))
    assert not BEST.exists()


def test_a_backbone_that_needs_the_network_fails_before_any_result(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("requests.head", offline)
    with pytest.raises(ConfigError, match="checkpoint_path"):
        train.main(arguments(packed, model={"backbone": "convnext_atto"}))
    assert not BEST.exists()


def test_a_second_stage_says_what_it_started_from_and_other_weights_are_another_run(packed: Path) -> None:
    train.main(arguments(packed))
    first = json.loads(BEST.read_text())["weights"]["sha256"]
    results = Path("results/gen5_prime/second")
    second = ["--output", str(results / "best.json"), "--history", str(results / "history.json"), "--stage", "second"]
    second += ["--checkpoints", str(results / "checkpoints"), "--start", str(BEST), "--hard-negatives"]
    train.main([*arguments(packed), *second])
    best = json.loads((results / "best.json").read_text())
    assert (best["stage"], best["start_sha256"], best["hard_negatives_sha256"]) == ("second", first, None)
    assert best["weights"]["sha256"] != first
    history = read_history(results / "history.json")
    assert history.table.num_rows == 2
    assert str(BEST) in json.dumps(json.loads((results / "best.provenance.json").read_text()))


def test_mined_negatives_join_the_pool_and_are_named_in_best_json(packed: Path, tmp_path: Path) -> None:
    mined = write_mined(Path("results/gen3/hard_negatives.json"), 6)
    sampler = {"batch_pairs": 8, "per_pair": "all", "negative_prob": 0.2}
    train.main([*arguments(packed, sampler=sampler, model=LENIENT), "--hard-negatives", str(mined)])
    assert json.loads(BEST.read_text())["hard_negatives_sha256"] == load_manifest(mined).sha256


@pytest.mark.parametrize("option", ["--start", "--hard-negatives"])
def test_two_files_where_one_is_meant_are_refused(packed: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} takes one file and got 2"):
        train.main([*arguments(packed), option, "a.json", "b.json"])
