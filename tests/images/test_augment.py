"""Augmentation: true to the sky, and the same for the same generator."""

import pytest
import torch
from pydantic import ValidationError

from dark_halo_scope.images.augment import augment, dihedral_each
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


@pytest.mark.parametrize("name", ["brightness", "colour", "scale"])
def test_jitter_that_makes_shortcuts_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} jitter is refused because"):
        AugmentSettings.model_validate({name: 0.1})
