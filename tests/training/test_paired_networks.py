"""Networks with control channels train, are gated and are kept like any other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dark_halo_scope.core.files import write_json
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import load_model, save_model
from dark_halo_scope.training.loop import Trainer

from .toys import toy_settings, write_toy_split

CPU = torch.device("cpu")


@pytest.mark.parametrize("source", CONTROL_SOURCES)
def test_every_source_trains_and_scores_after_loading_as_in_training(tmp_path: Path, source: str) -> None:
    settings = toy_settings(epochs=1, preprocessing={"control_source": source, "residual": False, "library_size": 8})
    train, val = write_toy_split(tmp_path / "train", 16, 1), write_toy_split(tmp_path / "val", 8, 2)
    result = Trainer(settings, train, val, CPU, tmp_path / "checkpoints").run()
    assert result.model.in_channels == 6
    assert np.isfinite(result.best["val_loss"])
    assert result.best["gates"]["gates"]["G5"]["n"] == 8

    best = tmp_path / "best.json"
    write_json(best, save_model(best, result.model, result.preprocess, {}))
    model, preprocess, card = load_model(best)
    assert card["deployable"] is (source != "paired_oracle")
    images, controls = np.asarray(val.positive), np.asarray(val.control)
    np.testing.assert_array_equal(
        predictor(model, preprocess, CPU)(images, val.rows, controls=controls),
        predictor(result.model, result.preprocess, CPU)(images, val.rows, controls=controls),
    )


def test_a_run_that_starts_again_has_the_same_library(tmp_path: Path) -> None:
    settings = toy_settings(preprocessing={"control_source": "matched_lrg", "residual": False, "library_size": 8})
    train, val = write_toy_split(tmp_path / "train", 16, 1), write_toy_split(tmp_path / "val", 8, 2)
    first, second = (Trainer(settings, train, val, CPU, None) for _ in range(2))
    library = first.preprocess.state_dict()["control.library"]
    assert library.shape == (8, 3, 64, 64)
    assert torch.equal(library, second.preprocess.state_dict()["control.library"])
