"""LensFinder6CH: late fusion, its own standardisation, and no preferred orientation where asked."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.images.symmetries import dihedral
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH, meta_statistics

META = torch.tensor([[1.3, 24.0], [1.1, 24.5], [1.5, 23.5], [1.3, 24.1]])


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 6, 64, 64, generator=torch.Generator().manual_seed(2))


def test_one_raw_logit_per_image(small_model: LensFinder6CH) -> None:
    logits = small_model(images(), META)
    assert logits.shape == (4,)
    assert logits.dtype == torch.float32


def test_the_plans_network_is_convnext_tiny_with_its_final_norm() -> None:
    model = LensFinder6CH(ModelSettings(pretrained=False))
    assert 28_000_000 < model.parameters_count < 28_900_000
    assert model(images(2), META[:2]).shape == (2,)
    features = model.backbone(images(2))
    # The classifier is gone, its layer normalisation is not.
    torch.testing.assert_close(features.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.var(1, correction=0), torch.ones(2), atol=0.02, rtol=0)


def test_a_batch_does_not_change_an_images_logit(small_model: LensFinder6CH) -> None:
    torch.testing.assert_close(small_model(images(), META)[1:2], small_model(images()[1:2], META[1:2]))


def test_metadata_are_standardised_with_the_training_statistics(small_settings: ModelSettings) -> None:
    torch.manual_seed(0)
    plain = LensFinder6CH(small_settings).eval()
    torch.manual_seed(0)
    scaled = LensFinder6CH(small_settings).eval()
    scaled.set_meta_statistics([1.3, 24.0], [0.1, 0.5])
    standardised = (META - torch.tensor([1.3, 24.0])) / torch.tensor([0.1, 0.5])
    torch.testing.assert_close(scaled(images(), META), plain(images(), standardised))


def test_metadata_matter_and_stop_mattering_far_outside_of_training(small_model: LensFinder6CH) -> None:
    x = images(1)
    assert small_model(x, META[:1]) != small_model(x, META[1:2])
    far, farther = torch.tensor([[9.0, 24.0]]), torch.tensor([[99.0, 24.0]])
    assert small_model(x, far) == small_model(x, farther)


def test_a_column_that_never_varies_does_not_divide_by_zero(small_model: LensFinder6CH) -> None:
    small_model.set_meta_statistics([1.3, 24.0], [0.0, 0.4])
    assert torch.isfinite(small_model(images(), META)).all()


def test_a_network_without_metadata_takes_an_empty_array(small_settings: ModelSettings) -> None:
    model = LensFinder6CH(small_settings.model_copy(update={"meta_columns": ()}), in_channels=3)
    assert model(images()[:, :3], torch.empty(4, 0)).shape == (4,)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2), (4,)])
def test_metadata_of_another_shape_are_refused(small_model: LensFinder6CH, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="psfsize_r"):
        small_model(images(), torch.zeros(shape))


@pytest.mark.parametrize("column", ["arc_snr", "theta_e_arcsec", "is_control", "z_phot"])
def test_columns_that_could_leak_the_label_cannot_be_named(column: str) -> None:
    with pytest.raises(ValidationError, match="could leak the label"):
        ModelSettings(meta_columns=("psfsize_r", column))


def test_averaging_eight_orientations_makes_logits_the_same_for_each_of_them(small_settings: ModelSettings) -> None:
    torch.manual_seed(1)
    model = LensFinder6CH(small_settings.model_copy(update={"evaluate_symmetries": 8})).eval()
    reference = model(images(), META)
    for element in range(8):
        torch.testing.assert_close(model(dihedral(images(), element), META), reference, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model._logit(images(), META), reference, atol=1e-4)


def test_a_cropping_network_ignores_what_lies_outside(small_settings: ModelSettings) -> None:
    model = LensFinder6CH(small_settings.model_copy(update={"crop_pix": 48})).eval()
    x = images()
    changed = x.clone()
    changed[:, :, :8] = changed[:, :, 56:] = changed[..., :8] = changed[..., 56:] = 7.0
    assert torch.equal(model(x, META), model(changed, META))
    changed[:, :, 8:12, 30] = 7.0
    assert not torch.equal(model(x, META), model(changed, META))


def test_meta_statistics_are_those_of_the_columns_and_refuse_nan() -> None:
    values = np.array([[1.0, 10.0], [3.0, 30.0]])
    assert meta_statistics(values) == ([2.0, 20.0], [1.0, 10.0])
    values[0, 0] = np.nan
    with pytest.raises(BadInputError, match="not finite"):
        meta_statistics(values)


def test_statistics_that_are_not_one_per_column_are_refused(small_model: LensFinder6CH) -> None:
    with pytest.raises(ConfigError, match="psfsize_r"):
        small_model.set_meta_statistics([1.0], [1.0])
