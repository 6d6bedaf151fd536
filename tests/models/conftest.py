"""A small network and images that every test of the package can use."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.core.files import write_json
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.weights import save_model


@pytest.fixture
def small_settings() -> ModelSettings:
    return ModelSettings(backbone="small_cnn", width=8, hidden=16, pretrained=False)


@pytest.fixture
def small_model(small_settings: ModelSettings) -> LensFinder6CH:
    torch.manual_seed(0)
    model = LensFinder6CH(small_settings)
    model.set_meta_statistics([1.3, 24.0], [0.1, 0.4])
    return model.eval()


@pytest.fixture
def preprocess() -> Preprocess6CH:
    return Preprocess6CH(PreprocessSettings())


@pytest.fixture
def stamps() -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.01, (7, 3, 64, 64)).astype(np.float16)


@pytest.fixture
def rows() -> pa.Table:
    rng = np.random.default_rng(6)
    return pa.table({"psfsize_r": rng.uniform(1, 1.6, 7), "psfdepth_r": rng.uniform(23, 25, 7)})


@pytest.fixture
def best_json(tmp_path: Path, small_model: LensFinder6CH, preprocess: Preprocess6CH) -> Path:
    path = tmp_path / "main" / "best.json"
    write_json(path, save_model(path, small_model, preprocess, {"generation": "gen5_prime", "val_auc": 0.9}))
    return path
