"""A trained network on disk: what is loaded is what was saved, or nothing is."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError, CorruptDataError, DarkHaloScopeError
from dark_halo_scope.core.files import sha256_file, write_json
from dark_halo_scope.images.preprocess import Preprocess6CH, band_statistics
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES, PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.deploy import open_finder
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import load_model, save_model

CPU = torch.device("cpu")


def weights_file(best_json: Path) -> Path:
    return best_json.parent / json.loads(best_json.read_text())["weights"]["uri"]


def test_a_loaded_network_scores_as_the_saved_one(
    best_json: Path, small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    model, loaded_preprocess, card = load_model(best_json)
    assert not model.training
    np.testing.assert_array_equal(
        predictor(model, loaded_preprocess, CPU)(stamps, rows), predictor(small_model, preprocess, CPU)(stamps, rows)
    )
    assert card["val_auc"] == 0.9


def test_best_json_says_what_was_trained(best_json: Path, small_model: LensFinder6CH) -> None:
    best = json.loads(best_json.read_text())
    weights = weights_file(best_json)
    assert best["weights"] == {
        "uri": f"weights/{weights.name}",
        "bytes": weights.stat().st_size,
        "sha256": sha256_file(weights),
    }
    assert best["meta"]["columns"] == ["psfsize_r", "psfdepth_r"]
    assert best["meta"]["mean"] == pytest.approx([1.3, 24.0])
    assert best["parameters"] == small_model.parameters_count
    assert best["model"]["backbone"] == "small_cnn"
    assert best["preprocessing"]["clip_high"] == 10.0


def test_the_card_beside_the_weights_is_best_json(best_json: Path) -> None:
    card = json.loads(weights_file(best_json).with_suffix(".json").read_text())
    best = json.loads(best_json.read_text())
    # Each names the weights from its own folder.
    assert card.pop("weights")["uri"] == Path(best["weights"]["uri"]).name
    assert best.pop("weights")
    assert card == best


def test_equal_networks_give_equal_files(
    best_json: Path, small_model: LensFinder6CH, preprocess: Preprocess6CH
) -> None:
    before = best_json.read_bytes()
    again = save_model(best_json, small_model, preprocess, {"generation": "gen5_prime", "val_auc": 0.9})
    write_json(best_json, again)
    assert best_json.read_bytes() == before


@pytest.mark.parametrize("place", [0.1, 0.5, 0.999])
def test_one_flipped_byte_is_an_error_not_a_score(best_json: Path, place: float) -> None:
    weights = weights_file(best_json)
    data = bytearray(weights.read_bytes())
    data[int(place * len(data))] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptDataError, match=weights.name):
        load_model(best_json)


def test_a_pickle_behind_a_correct_checksum_is_refused_and_does_nothing(best_json: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(tmp_path / "witness"), "w"))

    weights = weights_file(best_json)
    weights.write_bytes(pickle.dumps(Payload()))
    best = json.loads(best_json.read_text())
    best["weights"] |= {"bytes": weights.stat().st_size, "sha256": sha256_file(weights)}
    write_json(best_json, best)
    with pytest.raises(BadInputError, match="pickle"):
        load_model(best_json)
    assert not (tmp_path / "witness").exists()


def test_missing_weights_are_named(best_json: Path) -> None:
    weights_file(best_json).unlink()
    with pytest.raises(BadInputError, match="cannot be read"):
        load_model(best_json)


def test_a_description_of_another_network_is_refused(best_json: Path) -> None:
    best = json.loads(best_json.read_text())
    best["model"]["width"] = 12
    write_json(best_json, best)
    with pytest.raises(BadInputError, match="another network"):
        load_model(best_json)


@pytest.mark.parametrize("key", ["weights", "model", "preprocessing", "in_channels"])
def test_a_description_that_lacks_a_part_is_refused(best_json: Path, key: str) -> None:
    best = json.loads(best_json.read_text())
    del best[key]
    write_json(best_json, best)
    with pytest.raises(DarkHaloScopeError):
        load_model(best_json)


@pytest.mark.parametrize("uri", ["../outside.safetensors", "/etc/passwd"])
def test_weights_outside_the_models_folder_are_refused(best_json: Path, uri: str) -> None:
    best = json.loads(best_json.read_text())
    best["weights"]["uri"] = uri
    write_json(best_json, best)
    with pytest.raises(BadInputError, match="outside"):
        load_model(best_json)


@pytest.mark.parametrize("source", [None, *CONTROL_SOURCES])
def test_a_loaded_network_sees_what_the_trained_one_saw(
    tmp_path: Path, small_settings: ModelSettings, stamps: np.ndarray, rows: pa.Table, source: str | None
) -> None:
    """Inference has training's normalisation, control channels and what they learned included."""
    trained = Preprocess6CH(
        PreprocessSettings.model_validate(
            {"annulus_inner_pix": 20, "clip_low": -4, "clip_high": 7, "residual_sigma_pix": 2, "control_source": source}
        )
    )
    controls = stamps + np.random.default_rng(9).normal(0, 0.01, stamps.shape).astype(np.float16)
    if trained.needs_library:
        host = np.exp(-np.hypot(*np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5)) / 3)
        trained.set_library(controls[:4] + host)
    torch.manual_seed(2)
    model = LensFinder6CH(small_settings, trained.channels).eval()
    best = tmp_path / "best.json"
    write_json(best, save_model(best, model, trained, {}))

    meta = torch.tensor(np.stack([rows["psfsize_r"].to_numpy(), rows["psfdepth_r"].to_numpy()], 1)).float()
    with torch.no_grad():
        as_trained = model(trained(torch.from_numpy(stamps), torch.from_numpy(controls)), meta).numpy()
    loaded, preprocess, card = load_model(best)
    predict = predictor(loaded, preprocess, CPU, batch_size=3)
    np.testing.assert_allclose(predict(stamps, rows, controls=controls), as_trained, atol=1e-5)
    assert card["deployable"] is (source != "paired_oracle")
    if source == "paired_oracle":
        with pytest.raises(BadInputError, match="never deployed"):
            predict(stamps, rows)
        with pytest.raises(BadInputError, match=r"best\.json.*paired_oracle.*never deployed.*azimuthal_median_self"):
            open_finder(best)
    else:
        np.testing.assert_array_equal(predict(stamps, rows), predict(stamps, rows, controls=controls))
        open_finder(best)


def test_a_loaded_network_normalises_with_the_statistics_of_its_training(
    tmp_path: Path, small_settings: ModelSettings, stamps: np.ndarray, rows: pa.Table
) -> None:
    """Scores of stamps that are ten times as bright as training's must not be those of training's stamps."""
    trained = Preprocess6CH(PreprocessSettings.model_validate({"normalisation": "training_set", "residual": False}))
    trained.set_statistics(*band_statistics([stamps]))
    model = LensFinder6CH(small_settings, trained.channels).eval()
    best = tmp_path / "best.json"
    write_json(best, save_model(best, model, trained, {}))
    loaded, preprocess, _ = load_model(best)
    torch.testing.assert_close(preprocess(torch.from_numpy(stamps)), trained(torch.from_numpy(stamps)), rtol=0, atol=0)
    before = predictor(model, trained, CPU)(stamps, rows)
    np.testing.assert_array_equal(predictor(loaded, preprocess, CPU)(stamps, rows), before)
    assert np.abs(predictor(loaded, preprocess, CPU)(10 * stamps, rows) - before).max() > 1e-3


def test_weights_without_the_statistics_that_their_description_asks_for_are_refused(best_json: Path) -> None:
    best = json.loads(best_json.read_text())
    best["preprocessing"] |= {"normalisation": "training_set"}
    write_json(best_json, best)
    with pytest.raises(BadInputError, match="training_set keeps"):
        load_model(best_json)


def test_another_normalisation_than_trainings_would_be_noticed(
    best_json: Path, small_model: LensFinder6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    """The earlier scorer normalised over the whole stamp whatever training did."""
    model, preprocess, _ = load_model(best_json)
    images = stamps + 0.5 * np.exp(-np.hypot(*np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5)) / 6)
    whole = Preprocess6CH(preprocess.settings.model_copy(update={"annulus_inner_pix": 0.0}))
    ours, theirs = (predictor(model, each, CPU)(images, rows) for each in (preprocess, whole))
    assert np.abs(ours - theirs).max() > 0.01


def test_weights_without_what_preprocessing_learned_are_refused(
    tmp_path: Path, small_settings: ModelSettings, stamps: np.ndarray
) -> None:
    best = tmp_path / "best.json"
    settings = PreprocessSettings.model_validate({"control_source": "matched_lrg", "residual": False})
    preprocess = Preprocess6CH(settings)
    preprocess.set_library(stamps)
    write_json(best, save_model(best, LensFinder6CH(small_settings), preprocess, {}))
    card = json.loads(best.read_text())
    card["preprocessing"]["control_source"] = "rot180_self"
    write_json(best, card)
    with pytest.raises(BadInputError, match=r"keeps nothing and .*control\.library.* was saved"):
        load_model(best)
