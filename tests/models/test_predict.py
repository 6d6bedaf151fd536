"""Logits of packed images: the same preprocessing as in training, whatever the batch."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.device import resolve_device, resolve_precision
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import predictor

CPU = torch.device("cpu")


def test_logits_are_those_of_preprocessing_and_network(
    small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    meta = torch.tensor(np.stack([rows["psfsize_r"].to_numpy(), rows["psfdepth_r"].to_numpy()], 1)).float()
    with torch.no_grad():
        expected = small_model(preprocess(torch.from_numpy(stamps)), meta).numpy()
    for batch_size in (2, 100):
        logits = predictor(small_model, preprocess, CPU, batch_size)(stamps, rows)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_model_comes_back_in_the_mode_it_was_in(
    small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    predict = predictor(small_model, preprocess, CPU)
    evaluated = predict(stamps, rows)
    small_model.train()
    np.testing.assert_array_equal(predict(stamps, rows), evaluated)
    assert small_model.training


def test_bfloat16_is_close_to_float32(
    small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    exact = predictor(small_model, preprocess, CPU)(stamps, rows)
    rounded = predictor(small_model, preprocess, CPU, precision="bfloat16")(stamps, rows)
    np.testing.assert_allclose(rounded, exact, atol=0.05)


def test_convolutions_are_not_rounded_to_tf32_while_scores_are_made_and_settings_come_back(
    small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    """A network frozen on a CPU is asked for the same logits on a GPU, where cuDNN rounds by default."""
    seen = []
    hook = small_model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = {name: getattr(torch.backends.cudnn, name) for name in ("allow_tf32", "enabled", "benchmark")}
    assert before["allow_tf32"], "the default that this is about"
    predictor(small_model, preprocess, torch.device("cpu"))(stamps, rows)
    hook.remove()
    assert seen == [False]
    assert before == {name: getattr(torch.backends.cudnn, name) for name in before}


def test_no_images_give_no_logits(small_model: LensFinder6CH, preprocess: Preprocess6CH, rows: pa.Table) -> None:
    assert predictor(small_model, preprocess, CPU)(np.empty((0, 3, 64, 64), np.float32), rows.slice(0, 0)).shape == (0,)


def test_rows_that_do_not_fit_are_refused(
    small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table
) -> None:
    predict = predictor(small_model, preprocess, CPU)
    with pytest.raises(BadInputError, match="do not match"):
        predict(stamps[:3], rows)
    with pytest.raises(BadInputError, match="psfdepth_r"):
        predict(stamps, rows.drop_columns("psfdepth_r"))


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_metadata_that_are_not_finite_are_refused(
    small_model: LensFinder6CH, preprocess: Preprocess6CH, stamps: np.ndarray, rows: pa.Table, bad: float | None
) -> None:
    values = [1.0, 1.1, bad, 1.0, 1.0, 1.0, 1.0]
    broken = rows.set_column(0, "psfsize_r", pa.array(values, pa.float64()))
    with pytest.raises(BadInputError, match="row 2"):
        predictor(small_model, preprocess, CPU)(stamps, broken)


def test_devices_and_precisions_are_known_by_name() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_precision("float32", CPU) is torch.float32
    assert resolve_precision("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        resolve_device("tpu")
    with pytest.raises(ConfigError, match="float32"):
        resolve_precision("fp8", CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto or cpu"):
        resolve_device("cuda")
