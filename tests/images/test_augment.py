"""Augmentation: true to the sky, and the same for the same generator."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from dark_halo_scope.images.augment import (
    apply_augmentation,
    augment,
    dihedral_by_choice,
    dihedral_each,
    draw_augmentation,
)
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import AugmentSettings, PreprocessSettings
from dark_halo_scope.images.symmetries import dihedral

PREPROCESS = Preprocess6CH(PreprocessSettings())


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def augmented(x: torch.Tensor, seed: int = 0, **settings: object) -> torch.Tensor:
    given = AugmentSettings.model_validate({"dihedral": False, **settings})
    return augment(x, given, PREPROCESS, torch.Generator().manual_seed(seed))[0]


def test_the_eight_symmetries_differ_and_keep_every_pixel() -> None:
    x = images(1)
    results = [dihedral(x, element) for element in range(8)]
    for first in range(8):
        assert torch.equal(results[first].flatten().sort().values, x.flatten().sort().values)
        assert all(not torch.equal(results[first], results[second]) for second in range(first))


def test_each_image_gets_its_own_symmetry_in_all_bands() -> None:
    x = images(8)
    elements = torch.arange(8)
    turned = dihedral_each(x, elements)
    for index in range(8):
        assert torch.equal(turned[index : index + 1], dihedral(x[index : index + 1], index))
    assert turned.is_contiguous()
    as_on_a_gpu = dihedral_by_choice(x, elements)
    assert torch.equal(as_on_a_gpu, turned)
    assert as_on_a_gpu.is_contiguous()


def test_every_symmetry_is_drawn_about_equally_often() -> None:
    marked = torch.zeros(4000, 3, 64, 64)
    marked[:, :, 3, 10] = 1.0
    counts = augmented(marked, dihedral=True).sum((0, 1)).flatten()
    places = counts[counts > 0] / 3
    assert len(places) == 8
    assert places.min() > 400


@pytest.mark.parametrize(
    "settings",
    [
        {"dihedral": True},
        {"shift_pix": 3},
        {"noise_sigma": 0.1},
        {"psf_blur_sigma_pix": 0.8},
        {"centre_degradation_probability": 0.5},
    ],
)
def test_the_same_generator_gives_the_same_images_and_another_others(settings: dict[str, object]) -> None:
    x = images(16)
    assert torch.equal(augmented(x, **settings), augmented(x, **settings))
    assert not torch.equal(augmented(x, **settings), augmented(x, seed=1, **settings))


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(augmented(images()), images())


def test_a_shift_moves_whole_pixels_no_farther_than_asked() -> None:
    x = torch.zeros(200, 3, 64, 64)
    x[:, :, 30, 30] = 1.0
    where = augmented(x, shift_pix=2)[:, 0].flatten(1).argmax(1)
    offsets = torch.stack([where // 64 - 30, where % 64 - 30])
    assert offsets.abs().max() == 2
    assert len(offsets.unique(dim=1).T) == 25


def test_noise_has_the_asked_share_of_each_stamps_own_noise() -> None:
    x = images(32) * 0.01
    added = augmented(x, noise_sigma=0.1) - x
    assert added.std() == pytest.approx(0.001, rel=0.03)


def test_blur_keeps_flux_and_smooths() -> None:
    x = images(16)
    blurred = augmented(x, psf_blur_sigma_pix=1.0)
    torch.testing.assert_close(blurred.sum((2, 3)), x.sum((2, 3)), atol=1e-2, rtol=1e-4)
    assert blurred.std() < 0.9 * x.std()


def test_a_degraded_centre_keeps_its_mean_and_leaves_the_rest_alone() -> None:
    x = images(1)
    y = augmented(x, centre_degradation_probability=1.0, centre_degradation_radius_pix=3.0)
    offset = torch.arange(64) - 31.5
    core = (offset[:, None] ** 2 + offset[None] ** 2) < 9
    assert torch.equal(y[:, :, ~core], x[:, :, ~core])
    torch.testing.assert_close(y[:, :, core].mean(-1), x[:, :, core].mean(-1))
    assert y[:, :, core].std(-1).max() < 1e-6


def test_a_degraded_core_is_the_galaxys_wherever_a_shift_moves_it() -> None:
    offset = torch.arange(64) - 31.5
    radius = torch.hypot(offset[:, None], offset[None])
    galaxy = torch.exp(-0.5 * radius**2).expand(50, 3, 64, 64)
    mean = galaxy[0, 0][radius < 5].mean()
    settings = {"dihedral": True, "shift_pix": 5, "centre_degradation_radius_pix": 5.0}
    degraded = augmented(galaxy, centre_degradation_probability=1.0, **settings)
    torch.testing.assert_close(degraded.amax((1, 2, 3)), mean.expand(50))
    assert len(degraded[:, 0].flatten(1).unique(dim=0)) > 20
    assert augmented(galaxy, **settings).amax((1, 2, 3)).min() > 5 * mean


@pytest.mark.parametrize("name", ["brightness", "colour", "scale"])
def test_jitter_that_makes_shortcuts_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} jitter is refused because"):
        AugmentSettings.model_validate({name: 0.1})


EVERYTHING = {
    "dihedral": True,
    "shift_pix": 5,
    "noise_sigma": 0.1,
    "psf_blur_sigma_pix": 1.0,
    "centre_degradation_probability": 0.5,
}


@pytest.mark.parametrize("name", [*EVERYTHING, "everything"])
def test_a_stamp_and_its_control_share_one_draw(name: str) -> None:
    """Stamp minus control of the augmented pair is the augmented difference: no noise, turned and moved alike."""
    chosen = EVERYTHING if name == "everything" else {name: EVERYTHING[name]}
    settings = AugmentSettings.model_validate({"dihedral": False, **chosen})
    controls = images(16) * 0.01
    arcs = torch.zeros_like(controls)
    arcs[:, :, 20:24, 30:40] = 0.05
    stamps, both = augment(controls + arcs, settings, PREPROCESS, torch.Generator().manual_seed(7), controls)
    assert both is not None
    assert not torch.equal(both, controls)
    noiseless = settings.model_copy(update={"noise_sigma": 0.0})
    draws = draw_augmentation(tuple(arcs.shape), settings, torch.Generator().manual_seed(7))
    expected, none = apply_augmentation(arcs, replace(draws, noise=None), noiseless, PREPROCESS)
    assert none is None
    torch.testing.assert_close(stamps - both, expected, atol=1e-6, rtol=0)


def test_a_control_beside_it_does_not_change_a_stamp() -> None:
    settings, x = AugmentSettings.model_validate(EVERYTHING), images(8)
    alone, _ = augment(x, settings, PREPROCESS, torch.Generator().manual_seed(7))
    paired, _ = augment(x, settings, PREPROCESS, torch.Generator().manual_seed(7), images(8) + 1)
    assert torch.equal(alone, paired)


def test_a_share_of_a_batch_is_augmented_as_in_the_whole_batch() -> None:
    """Several processes make the draws of the whole batch, each uses its own."""
    settings, x = AugmentSettings.model_validate(EVERYTHING), images(12)
    whole, _ = augment(x, settings, PREPROCESS, torch.Generator().manual_seed(7))
    draws = draw_augmentation(tuple(x.shape), settings, torch.Generator().manual_seed(7))
    for part in (torch.tensor([0, 3, 11]), slice(4, 9)):
        share, _ = apply_augmentation(x[part], draws.take(part), settings, PREPROCESS)
        torch.testing.assert_close(share, whole[part], atol=1e-6, rtol=1e-5)


def test_what_a_shift_brings_in_mirrors_the_stamp_and_bands_move_together() -> None:
    x = images(40)
    moved = augmented(x, shift_pix=5)
    padded = torch.nn.functional.pad(x, [5] * 4, mode="reflect")
    corners = torch.randint(11, (40, 2), generator=torch.Generator().manual_seed(0))
    for index, (top, left) in enumerate(corners.tolist()):
        assert torch.equal(moved[index], padded[index, :, top : top + 64, left : left + 64])


def test_draws_come_from_one_stream_in_a_fixed_order() -> None:
    """What a seed trained to stays what it trains to when another augmentation is switched on after it."""
    generator = torch.Generator().manual_seed(3)
    draws = draw_augmentation((6, 3, 8, 8), AugmentSettings.model_validate(EVERYTHING), generator)
    again = torch.Generator().manual_seed(3)
    assert torch.equal(draws.element, torch.randint(8, (6,), generator=again))
    assert torch.equal(draws.corner, torch.randint(11, (6, 2), generator=again))
    assert torch.equal(draws.blur, torch.rand(6, generator=again))
    assert torch.equal(draws.noise, torch.randn(6, 3, 8, 8, generator=again))
    assert torch.equal(draws.degraded, torch.rand(6, generator=again) < 0.5)


@pytest.mark.parametrize(("name", "value"), [("shift_pix", 6), ("noise_sigma", 0.11), ("psf_blur_sigma_pix", 1.1)])
def test_changes_beyond_what_the_sky_does_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match="less than or equal"):
        AugmentSettings.model_validate({name: value})


@pytest.mark.gpu
def test_a_gpu_augments_as_the_cpu_does_but_for_the_noise() -> None:
    settings = AugmentSettings.model_validate({**EVERYTHING, "noise_sigma": 0.0})
    on_cpu, _ = augment(images(16), settings, PREPROCESS, torch.Generator().manual_seed(7))
    preprocess = Preprocess6CH(PreprocessSettings()).cuda()
    on_gpu, _ = augment(images(16).cuda(), settings, preprocess, torch.Generator().manual_seed(7))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-5, rtol=1e-4)
    noisy = AugmentSettings.model_validate({"dihedral": False, "noise_sigma": 0.1})
    first, second = (
        augment(images(16).cuda(), noisy, preprocess, torch.Generator().manual_seed(7))[0] for _ in range(2)
    )
    assert torch.equal(first, second)
    assert (first.cpu() - images(16)).std() == pytest.approx(0.1, rel=0.05)
