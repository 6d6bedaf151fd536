"""A network that is opened to score: the same as was saved, on the device asked for, and never a diagnostic unasked."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.deploy import open_finder
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import save_model


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def write_diagnostic(best: Path, settings: ModelSettings, **said: bool) -> None:
    preprocess = Preprocess6CH(PreprocessSettings(residual=False, control_source="paired_oracle"))
    card = save_model(best, LensFinder6CH(settings), preprocess, {})
    del card["deployable"]
    write_json(best, {**card, **said})


def test_an_opened_network_scores_as_the_saved_one(
    best_json: Path, small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    finder = open_finder(best_json, "cpu")
    assert finder.card == json.loads(best_json.read_text())
    assert finder.device == torch.device("cpu")
    saved = predictor(small_model, preprocess, finder.device)
    np.testing.assert_allclose(finder.predictor(3)(stamps, rows), saved(stamps, rows), atol=1e-6)
    np.testing.assert_array_equal(finder.predictor()(stamps, rows), saved(stamps, rows))


def test_threads_are_set_where_they_are_asked_for(best_json: Path, threads: int) -> None:
    open_finder(best_json, "cpu", threads + 1)
    assert torch.get_num_threads() == threads + 1
    for unsaid in (None, 0):
        open_finder(best_json, "cpu", unsaid)
        assert torch.get_num_threads() == threads + 1


@pytest.mark.parametrize("said", [{}, {"deployable": True}])
def test_a_diagnostic_is_refused_whatever_its_best_json_says_of_itself(
    tmp_path: Path, small_settings: ModelSettings, said: dict[str, bool]
) -> None:
    best = tmp_path / "best.json"
    write_diagnostic(best, small_settings, **said)
    with pytest.raises(BadInputError, match=r"paired_oracle.*never deployed"):
        open_finder(best)


def test_a_diagnostic_is_opened_for_pairs_and_refuses_images_without_their_controls(
    tmp_path: Path, small_settings: ModelSettings, stamps: np.ndarray, rows: pa.Table
) -> None:
    best = tmp_path / "best.json"
    write_diagnostic(best, small_settings)
    predict = open_finder(best, "cpu", diagnostic_too=True).predictor()
    assert np.isfinite(predict(stamps, rows, controls=stamps)).all()
    with pytest.raises(BadInputError, match="never deployed"):
        predict(stamps, rows)


def test_a_network_of_the_time_before_control_channels_can_be_deployed(best_json: Path) -> None:
    card = json.loads(best_json.read_text())
    del card["deployable"], card["preprocessing"]["control_source"], card["preprocessing"]["library_size"]
    write_json(best_json, card)
    open_finder(best_json)


def test_a_device_that_does_not_exist_is_refused(best_json: Path) -> None:
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        open_finder(best_json, "tpu")
