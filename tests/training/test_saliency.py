"""Saliency: a network that looks at arcs is told from one that looks elsewhere, and is left as it was."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.training.saliency import annulus_share

GATES = GateSettings()
SCALE, SIZE = 0.262, 64
RNG = np.random.default_rng(1)
IMAGES = RNG.normal(0, 1, (6, 3, SIZE, SIZE)).astype(np.float32)
AXIS = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
RADIUS = np.hypot(AXIS[:, None], AXIS[None])


def rows(theta_e: float = 2.0, psfsize: float = 1.2, **columns: Any) -> pa.Table:
    return pa.table({"theta_e_arcsec": [theta_e] * 6, "psfsize_r": [psfsize] * 6, **columns})


class Looks(LensFinder6CH):
    """A network whose logit is the sum of the pixels where it looks."""

    def __init__(self, where_HW: NDArray[np.bool_], crop_pix: int | None = None) -> None:
        settings = ModelSettings(
            backbone="small_cnn", width=4, hidden=4, pretrained=False, meta_columns=(), crop_pix=crop_pix
        )
        super().__init__(settings, 6)
        self.weight = torch.nn.Parameter(torch.from_numpy(where_HW.astype(np.float32)))

    def forward(self, x_BCHW: torch.Tensor, meta_BM: torch.Tensor) -> torch.Tensor:
        return (self.crop(x_BCHW) * self.crop(self.weight[None, None])).sum((1, 2, 3))


def share(model: LensFinder6CH, table: pa.Table) -> dict[str, Any]:
    return annulus_share(model, Preprocess6CH(PreprocessSettings(), SIZE), IMAGES, IMAGES, table, GATES, batch=4)


ANNULUS = np.abs(RADIUS - 2.0) < 1.2


def test_a_network_that_looks_at_the_arc_has_its_whole_attribution_there() -> None:
    found = share(Looks(ANNULUS), rows())
    assert found["value"] == pytest.approx(1)
    assert found["n"] == 6


def test_a_network_that_looks_at_the_core_has_none_there() -> None:
    assert share(Looks(RADIUS < 0.7), rows())["value"] == 0


def test_a_network_that_looks_everywhere_has_the_share_of_the_area() -> None:
    found = share(Looks(np.ones_like(ANNULUS)), rows())
    assert found["value"] == pytest.approx(ANNULUS.mean())
    assert found["area"] == pytest.approx(ANNULUS.mean())


def test_the_area_is_that_of_what_the_network_sees() -> None:
    found = share(Looks(np.ones_like(ANNULUS), crop_pix=32), rows())
    assert found["area"] == pytest.approx(ANNULUS[16:48, 16:48].mean())
    assert found["value"] == pytest.approx(found["area"])


def test_the_annulus_follows_the_lens_off_the_centre() -> None:
    shifted = rows(host_offset_x_arcsec=[2.62] * 6, host_offset_y_arcsec=[0.0] * 6)
    assert share(Looks(np.roll(ANNULUS, 10, axis=1)), shifted)["value"] == pytest.approx(1)
    assert share(Looks(ANNULUS), shifted)["value"] < 0.9


def test_rows_that_gates_cannot_measure_are_left_out() -> None:
    table = rows(is_control=[0, 1, 0, 1, 0, 0])
    assert share(Looks(ANNULUS), table)["n"] == 4
    nothing = share(Looks(ANNULUS), rows(theta_e=float("nan")))
    assert nothing.pop("n") == 0
    assert set(nothing.values()) == {None}


def test_a_logit_that_no_pixel_moves_is_attributed_to_none() -> None:
    assert share(Looks(np.zeros_like(ANNULUS)), rows())["n"] == 0


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_an_untrained_network_is_taken_for_one(seed: int) -> None:
    settings = ModelSettings(backbone="small_cnn", width=4, hidden=32, pretrained=False, meta_columns=(), crop_pix=48)
    torch.manual_seed(seed)
    found = share(LensFinder6CH(settings, 6), rows())
    # They look more at the centre than at the edges: against the area alone they would seem to have learned that.
    assert found["untrained"] > found["area"] + 0.01
    assert found["value"] < found["untrained_high"]


def test_random_numbers_of_training_are_left_alone() -> None:
    torch.manual_seed(7)
    share(Looks(ANNULUS), rows())
    after = torch.rand(4)
    torch.manual_seed(7)
    Looks(ANNULUS)
    assert torch.equal(after, torch.rand(4))


def test_the_network_is_left_as_it_was() -> None:
    settings = ModelSettings(backbone="small_cnn", width=4, hidden=4, pretrained=False, meta_columns=("psfsize_r",))
    torch.manual_seed(1)
    model = LensFinder6CH(settings, 6).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = share(model, rows())
    assert 0 < found["value"] < 1
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
