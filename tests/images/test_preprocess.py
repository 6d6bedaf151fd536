"""Preprocessing: what the channels are, and that an arc survives them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.images.preprocess import Preprocess6CH, annulus_mask, arcsinh, band_statistics, blur_matrix
from dark_halo_scope.images.preprocess_config import PRESETS, PreprocessSettings, preset
from dark_halo_scope.images.symmetries import dihedral

NOISE = 0.01  # nanomaggies per pixel


def radius(size: int = 64) -> np.ndarray:
    offset = np.arange(size) - (size - 1) / 2
    return np.hypot(offset[:, None], offset[None, :])


def host_and_arc(size: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy bright galaxy (1, 3, H, W), and an arc of five times the noise at seven pixels on one side of it."""
    r = radius(size)
    rng = np.random.default_rng(seed)
    host = 2.0 * np.exp(-2.5 * r**0.5) * np.ones((3, 1, 1)) + rng.normal(0.003, NOISE, (3, size, size))
    x = np.arange(size) - (size - 1) / 2
    arc = 5 * NOISE * np.exp(-0.5 * ((r - 7) / 2) ** 2) * (x[None, :] > 3) * np.ones((3, 1, 1))
    return torch.from_numpy(host[None]).float(), torch.from_numpy(arc[None]).float()


def test_the_blur_is_scipys_with_mirrored_edges() -> None:
    image = np.random.default_rng(1).normal(size=(64, 64))
    matrix = blur_matrix(64, 3.0, 3.0)
    np.testing.assert_allclose(
        matrix @ image @ matrix.T, gaussian_filter(image, 3.0, mode="reflect", truncate=3.0), atol=1e-12
    )


def test_the_annulus_is_centred_between_the_middle_pixels_and_starts_at_16_pixels() -> None:
    np.testing.assert_array_equal(annulus_mask(64, 16.0), radius() >= 16)
    np.testing.assert_array_equal(annulus_mask(64, 20.0, 32.0), (radius() >= 20) & (radius() < 32))


def test_the_first_channels_are_clipped_noise_units_of_the_annulus_and_the_others_their_high_pass() -> None:
    image, _ = host_and_arc()
    x = Preprocess6CH(PreprocessSettings())(image)[0].numpy()
    for band in range(3):
        pixels = image[0, band].numpy()
        ring = np.sort(pixels[radius() >= 16])
        median = ring[(len(ring) - 1) // 2]
        deviations = np.sort(np.abs(ring - median))
        sigma = 1.4826 * deviations[(len(deviations) - 1) // 2] + 1e-6
        expected = np.clip((pixels - median) / sigma, -10, 10)
        np.testing.assert_allclose(x[band], expected, atol=1e-4)
        high_pass = expected - gaussian_filter(expected, 3.0, mode="reflect", truncate=3.0)
        np.testing.assert_allclose(x[3 + band], high_pass, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"full_image"}))
def test_an_arc_inside_the_annulus_does_not_change_the_scale(name: str) -> None:
    host, arc = host_and_arc()
    arc = arc * (torch.from_numpy(radius()) < 14)
    preprocess = Preprocess6CH(preset(name))
    for with_arc, without in zip(preprocess.background(host + arc), preprocess.background(host), strict=True):
        assert torch.equal(with_arc, without)


@pytest.mark.parametrize("name", ["gen5_prime_asinh", "gen5_prime_linear_residual"])
def test_an_arc_keeps_its_contrast_over_the_noise(name: str) -> None:
    host, arc = host_and_arc()
    preprocess = Preprocess6CH(preset(name))
    change = preprocess(host + arc) - preprocess(host)
    quiet = preprocess(host)[:, :, torch.from_numpy(radius() > 24)].std()
    on_arc = torch.from_numpy(arc[0, 0].numpy() > 4 * NOISE)
    assert change[:, :3][:, :, on_arc].mean() > 0.5 * quiet
    assert change[:, 3:][:, :, on_arc].mean() > 0.3 * quiet


def test_a_residual_in_noise_units_shows_more_of_an_arc_on_a_bright_host_than_one_after_the_stretch() -> None:
    noise, arc = host_and_arc()
    host = noise + torch.from_numpy(5 * np.exp(-radius() / 4)).float()
    on_arc = torch.from_numpy(arc[0, 0].numpy() > 4 * NOISE)

    def contrast(name: str) -> float:
        preprocess = Preprocess6CH(preset(name))
        return float((preprocess(host + arc) - preprocess(host))[:, 3:][:, :, on_arc].mean())

    assert contrast("gen5_prime_linear_residual") > 1.5 * contrast("gen5_prime_asinh")


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.5, 50), offset=st.floats(-1, 1))
def test_channels_depend_on_neither_the_unit_nor_the_level_of_the_sky(scale: float, offset: float) -> None:
    image, _ = host_and_arc()
    preprocess = Preprocess6CH(PreprocessSettings())
    torch.testing.assert_close(preprocess(image * scale + offset), preprocess(image), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("element", range(8))
def test_preprocessing_commutes_with_flips_and_turns(name: str, element: int) -> None:
    image, _ = host_and_arc()
    preprocess = Preprocess6CH(preset(name))
    if preprocess.needs_statistics:
        preprocess.set_statistics(*band_statistics([image.numpy()]))
    torch.testing.assert_close(preprocess(dihedral(image, element)), dihedral(preprocess(image), element))


def test_one_image_does_not_change_anothers_channels() -> None:
    images = torch.cat([host_and_arc(seed=seed)[0] * (seed + 1) for seed in range(4)])
    preprocess = Preprocess6CH(PreprocessSettings())
    torch.testing.assert_close(preprocess(images)[2:3], preprocess(images[2:3]))


def test_the_background_is_the_same_to_the_bit_whichever_way_its_medians_are_found() -> None:
    """NumPy finds them on a CPU, torch elsewhere and where gradients are asked for."""
    preprocess = Preprocess6CH(PreprocessSettings())
    x = torch.from_numpy(np.random.default_rng(5).normal(0.01, NOISE, (9, 3, 64, 64))).half().float()
    median, sigma = preprocess.background(x)
    with_gradient, also = preprocess.background(x.clone().requires_grad_())
    assert torch.equal(median, with_gradient.detach())
    assert torch.equal(sigma, also.detach())


def test_the_stretch_is_the_inverse_hyperbolic_sine_to_the_last_bits() -> None:
    values = np.concatenate([np.geomspace(1e-6, 1e6, 400_001), [1e-30, 6.6e10]]).astype(np.float32)
    x = torch.from_numpy(values.copy())
    expected = np.arcsinh(values.astype(np.float64))
    np.testing.assert_allclose(arcsinh(x).numpy(), expected, rtol=2e-7, atol=0)
    assert torch.equal(arcsinh(-x), -arcsinh(x))
    assert arcsinh(torch.zeros(2)).tolist() == [0, 0]
    assert torch.isnan(arcsinh(torch.tensor([torch.nan]))).all()
    np.testing.assert_array_equal(x.numpy(), values)


def test_the_annulus_grows_with_the_stamp() -> None:
    small, large = Preprocess6CH(PreprocessSettings(), 64), Preprocess6CH(PreprocessSettings(), 101)
    assert len(large.annulus) / 101**2 == pytest.approx(len(small.annulus) / 64**2, abs=0.01)


@pytest.mark.parametrize("name", ["gen5_prime", "planb", "dhs_raw_robust", "real_asinh"])
def test_the_annulus_of_a_101_pixel_stamp_lies_outside_galaxy_light(name: str) -> None:
    """An annulus at [20, 32) pixels, as 64-pixel stamps have it, sits in the galaxy that a 101-pixel stamp shows."""
    r = radius(101)
    sky = np.random.default_rng(4).normal(0.003, NOISE, (1, 3, 101, 101))
    halo = 10 * NOISE * ((r > 20) & (r < 25)) * np.ones((1, 3, 1, 1))
    preprocess = Preprocess6CH(preset(name), 101)
    quiet, lit = (preprocess.background(torch.from_numpy(x).float()) for x in (sky, sky + halo))
    for with_halo, without in zip(lit, quiet, strict=True):
        assert torch.equal(with_halo, without)
    unscaled = Preprocess6CH(preset(name).model_copy(update={"reference_size": 101}), 101)
    median, _ = unscaled.background(torch.from_numpy(sky + halo).float())
    inner = preset(name).annulus_inner_pix
    outer = preset(name).annulus_outer_pix
    shared = (annulus_mask(101, inner, outer) & (r > 20) & (r < 25)).sum() / annulus_mask(101, inner, outer).sum()
    assert float((median - quiet[0]).min()) > 0.3 * shared * NOISE


def test_statistics_of_training_are_those_of_all_pixels_however_they_come() -> None:
    rng = np.random.default_rng(7)
    images = (rng.normal(0, 1, (11, 3, 16, 16)) * [[[[1]], [[10]], [[100]]]] + 1e4).astype(np.float32)
    mean, std = band_statistics([images[:2], images[2:2], images[2:10], images[10:]])
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, images.astype(np.float64).std((0, 2, 3)), rtol=1e-9)


def test_each_band_is_normalised_by_training_and_not_by_the_stamp() -> None:
    images = torch.cat([host_and_arc(seed=seed)[0] * (seed + 1) for seed in range(4)])
    preprocess = Preprocess6CH(preset("real_training_set"))
    preprocess.set_statistics(*band_statistics([images.numpy()]))
    x = preprocess(images)
    np.testing.assert_allclose(x.mean((0, 2, 3)).numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(x.std((0, 2, 3), correction=0).numpy(), 1, atol=1e-4)
    # Four times as bright a galaxy stays four times as bright.
    torch.testing.assert_close(
        x[3:] - preprocess(torch.zeros(1, 3, 64, 64)), images[3:] / preprocess.band_std[:, None, None]
    )


def test_training_set_normalisation_without_statistics_is_refused() -> None:
    bare = Preprocess6CH(preset("real_training_set"))
    with pytest.raises(BadInputError, match="has no statistics yet; call set_statistics"):
        bare(torch.zeros(1, 3, 64, 64))
    for std in ([1.0, 0.0, 1.0], [1.0, float("nan"), 1.0], [1.0, 1.0]):
        with pytest.raises(BadInputError, match="a finite mean and a positive deviation a band"):
            bare.set_statistics([0.0, 0.0, 0.0], std)
    with pytest.raises(BadInputError, match="robust has no statistics of training"):
        Preprocess6CH(preset("real_asinh")).set_statistics([0, 0, 0], [1, 1, 1])


def test_statistics_of_training_and_a_control_source_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="training_set subtracts training's mean and knows no control channels"):
        PreprocessSettings(normalisation="training_set", control_source="rot180_self")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_not_finite_is_refused_and_its_stamp_named(value: float) -> None:
    images = torch.cat([host_and_arc()[0]] * 3)
    images[1, 0, 5, 5] = value
    with pytest.raises(BadInputError, match=r"Stamps \[1\]"):
        Preprocess6CH(PreprocessSettings())(images)


def test_a_constant_annulus_gives_finite_channels() -> None:
    assert torch.isfinite(Preprocess6CH(PreprocessSettings())(torch.zeros(1, 3, 64, 64))).all()


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 6, 64, 64), (3, 64, 64)])
def test_stamps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="shape"):
        Preprocess6CH(PreprocessSettings())(torch.zeros(shape))


def test_an_annulus_outside_the_stamp_is_refused() -> None:
    with pytest.raises(BadInputError, match="annulus_inner_pix"):
        Preprocess6CH(PreprocessSettings(annulus_inner_pix=45.0))


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="gen5_prime"):
        preset("none such")


def test_presets_keep_the_seeds_numbers() -> None:
    plan, review = preset("gen5_prime"), preset("gen5_prime_paired")
    assert (plan.annulus_inner_pix, plan.clip_low, plan.clip_high, plan.residual_sigma_pix) == (16, -10, 10, 3)
    assert plan.channels == 6
    assert (review.clip_low, review.clip_high) == (-5, 20)
