"""Medians: one value, however and wherever it is found."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dark_halo_scope.images.control_sources import control_library
from dark_halo_scope.images.medians import lower_median
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES, PreprocessSettings


@pytest.fixture
def only_deterministic() -> Iterator[None]:
    """Algorithms that may differ from run to run are errors."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def numbers(count: int) -> torch.Tensor:
    """Rows of numbers (5, 3, count), many of them equal."""
    return torch.from_numpy(np.random.default_rng(count).normal(size=(5, 3, count)).round(1)).float()


@pytest.mark.parametrize("count", [1, 2, 7, 3000])
def test_of_an_even_number_it_is_the_smaller_of_the_middle_two(count: int) -> None:
    x = numbers(count)
    assert torch.equal(lower_median(x), x.sort(dim=-1).values[..., (count - 1) // 2, None])
    assert torch.equal(lower_median(x.clone().requires_grad_()).detach(), lower_median(x))


@pytest.mark.parametrize("count", [1, 2, 7, 3000])
def test_it_is_the_same_where_only_deterministic_algorithms_may_run(only_deterministic: None, count: int) -> None:
    x = numbers(count)
    assert torch.equal(lower_median(x.clone().requires_grad_()).detach(), x.median(dim=-1, keepdim=True).values)


def test_what_it_is_made_of_keeps_its_order() -> None:
    x = numbers(9)
    before = x.clone()
    lower_median(x)
    assert torch.equal(x, before)


@pytest.mark.gpu
@pytest.mark.parametrize("source", [None, *CONTROL_SOURCES])
def test_a_gpu_preprocesses_where_only_deterministic_algorithms_may_run(
    only_deterministic: None, source: str | None
) -> None:
    rng = np.random.default_rng(3)
    radius = np.hypot(*np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5))
    stamps = (rng.normal(0, 0.01, (24, 3, 64, 64)) + np.exp(-radius / 3)).astype(np.float32)
    channels = []
    for device in ("cpu", "cuda"):
        settings = PreprocessSettings.model_validate({"control_source": source, "stretch": "asinh"})
        preprocess = Preprocess6CH(settings).to(device)
        if preprocess.needs_library:
            preprocess.set_library(control_library(stamps[12:], 12, np.random.default_rng(1)))
        x = torch.from_numpy(stamps[:12]).to(device)
        channels.append(preprocess(x, x).cpu())
    torch.testing.assert_close(channels[1], channels[0], atol=1e-4, rtol=1e-4)
