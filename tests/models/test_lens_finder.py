"""LensFinder6CH: late fusion, its own standardisation, and no preferred orientation where asked."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.images.symmetries import dihedral
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.models.config import ModelSettings, leak_reason
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


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("arc_snr", "injected arc"),
        ("arc_snr_maxpix", "injected arc"),
        ("theta_e_arcsec_true", "Einstein radius"),
        ("lensed_mag_g", "injected arc"),
        ("src_gr", "injected source"),
        ("cosmos_index", "injected source"),
        ("psf_fwhm_used_r", "convolved"),
        ("is_control", "the label"),
        ("control_kind", "the label"),
        ("sampling_weight", "depends on the class"),
    ],
)
def test_columns_known_to_leak_the_label_cannot_be_named_and_the_reason_is_said(column: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=rf"{column} \(.*{reason}.*\) would leak the label"):
        ModelSettings(meta_columns=("psfsize_r", column))


def test_other_columns_can_be_named_because_the_data_judge_them() -> None:
    assert ModelSettings(meta_columns=("galdepth_z", "z_phot")).meta_columns == ("galdepth_z", "z_phot")


def test_of_a_stamps_numbers_only_those_of_the_sky_and_the_galaxy_are_no_known_leak() -> None:
    numbers = [field.name for field in stamp_schema() if pa.types.is_floating(field.type)]
    assert {name for name in numbers if leak_reason(name) is None} == {
        *("ra", "dec", "ab_zp_nmgy", "ebv", "bad_pixel_frac", "wise_brightmask_frac", "z_phot"),
        *(f"{name}_{band}" for name in ("psfsize", "psfdepth") for band in "grz"),
        *("gmag", "rmag", "zmag", "w1mag", "host_offset_x_arcsec", "host_offset_y_arcsec"),
    }


@pytest.mark.parametrize("fusion", ["late", "early", "branch"])
def test_metadata_change_the_logit_however_they_are_fused(small_settings: ModelSettings, fusion: str) -> None:
    torch.manual_seed(3)
    model = LensFinder6CH(small_settings.model_copy(update={"fusion": fusion})).eval()
    model.set_meta_statistics([1.3, 24.0], [0.1, 0.4])
    x = images(1)
    assert model(x, META[:1]) != model(x, META[1:2])
    loss = model(images(), META).sum()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.head.parameters())
    assert model.features(images(), META).shape == (4, model.head[0].in_features)


def test_metadata_fused_early_are_constant_planes_after_the_images_channels(small_settings: ModelSettings) -> None:
    model = LensFinder6CH(small_settings.model_copy(update={"fusion": "early"})).eval()
    model.set_meta_statistics([1.3, 24.0], [0.1, 0.5])
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images(), META)
    assert torch.equal(seen[0][:, :6], images())
    planes = ((META - torch.tensor([1.3, 24.0])) / torch.tensor([0.1, 0.5])).clamp(-5, 5)
    torch.testing.assert_close(seen[0][:, 6:], planes[..., None, None].expand(-1, -1, 64, 64))


def test_a_branch_adds_the_same_to_every_images_logit(small_settings: ModelSettings) -> None:
    torch.manual_seed(3)
    model = LensFinder6CH(small_settings.model_copy(update={"fusion": "branch"})).eval()
    one, other = META[:1].expand(4, -1), META[1:2].expand(4, -1)
    change = model(images(), other) - model(images(), one)
    assert change[0] != 0
    torch.testing.assert_close(change, change[:1].expand(4))


@pytest.mark.parametrize("fusion", ["late", "early", "branch"])
def test_without_metadata_every_fusion_is_the_same_network(small_settings: ModelSettings, fusion: str) -> None:
    settings = small_settings.model_copy(update={"fusion": fusion, "meta_columns": ()})
    torch.manual_seed(3)
    model = LensFinder6CH(settings).eval()
    torch.manual_seed(3)
    late = LensFinder6CH(settings.model_copy(update={"fusion": "late"})).eval()
    assert torch.equal(model(images(), torch.empty(4, 0)), late(images(), torch.empty(4, 0)))


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
