"""Augmentation on the device, every draw from a passed torch.Generator.

The images are in nanomaggies, before preprocessing, so that noise and blur mean what they say.
"""

import torch

from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import AugmentSettings

DIHEDRAL = 8  # four quarter turns, each with its mirror image


def dihedral(x_BCHW: torch.Tensor, element: int) -> torch.Tensor:
    """Apply one of the eight symmetries of the square: bit 0 mirrors x, bit 1 mirrors y, bit 2 transposes."""
    dims = [dim for bit, dim in ((1, -1), (2, -2)) if element & bit]
    if dims:
        x_BCHW = x_BCHW.flip(dims)
    return x_BCHW.transpose(-1, -2) if element & 4 else x_BCHW


def dihedral_each(x_BCHW: torch.Tensor, element_B: torch.Tensor) -> torch.Tensor:
    """Apply symmetry `element_B[i]` to image i."""
    out_BCHW = torch.empty_like(x_BCHW)
    for element in range(DIHEDRAL):
        chosen = (element_B == element).nonzero().flatten()
        if len(chosen):
            out_BCHW[chosen] = dihedral(x_BCHW[chosen], element)
    return out_BCHW


def _shift(x_BCHW: torch.Tensor, largest_pix: int, generator: torch.Generator) -> torch.Tensor:
    height, width = x_BCHW.shape[-2:]
    padded = torch.nn.functional.pad(x_BCHW, [largest_pix] * 4, mode="reflect")
    draws = torch.randint(2 * largest_pix + 1, (len(x_BCHW), 2), generator=generator, device=generator.device).tolist()
    return torch.stack(
        [image[:, dy : dy + height, dx : dx + width] for image, (dy, dx) in zip(padded, draws, strict=True)]
    )


def _blur(x_BCHW: torch.Tensor, largest_sigma_pix: float, generator: torch.Generator) -> torch.Tensor:
    """Blur image i with a Gaussian of sigma drawn uniformly from 0 to `largest_sigma_pix`."""
    sigma_B = torch.rand(len(x_BCHW), generator=generator, device=generator.device) * largest_sigma_pix
    sigma_B = sigma_B.to(x_BCHW.device).clamp_min(1e-3)
    taps = torch.arange(-3, 4, device=x_BCHW.device)
    kernel_BK = torch.exp(-0.5 * (taps / sigma_B[:, None]) ** 2)
    kernel_BK = kernel_BK / kernel_BK.sum(1, keepdim=True)
    size = x_BCHW.shape[-1]
    matrix_BHH = torch.zeros(len(x_BCHW), size, size, device=x_BCHW.device)
    rows = torch.arange(size, device=x_BCHW.device)
    for index, tap in enumerate(taps.tolist()):
        columns = rows + tap
        columns = torch.where(columns < 0, -1 - columns, torch.where(columns >= size, 2 * size - 1 - columns, columns))
        matrix_BHH[:, rows, columns] += kernel_BK[:, index : index + 1]
    matrix_B1HH = matrix_BHH[:, None]
    return matrix_B1HH @ x_BCHW @ matrix_B1HH.transpose(-1, -2)


def _degrade_centre(
    x_BCHW: torch.Tensor, probability: float, radius_pix: float, generator: torch.Generator
) -> torch.Tensor:
    """Replace the core of some images by its mean, so that its detail cannot decide."""
    size = x_BCHW.shape[-1]
    offset = torch.arange(size, device=x_BCHW.device) - (size - 1) / 2
    core = (offset[:, None] ** 2 + offset[None, :] ** 2) < radius_pix**2
    mean_BC11 = x_BCHW[:, :, core].mean(-1)[..., None, None]
    hit_B = torch.rand(len(x_BCHW), generator=generator, device=generator.device).to(x_BCHW.device) < probability
    return torch.where(hit_B[:, None, None, None] & core, mean_BC11, x_BCHW)


def augment(
    x_B3HW: torch.Tensor, settings: AugmentSettings, preprocess: Preprocess6CH, generator: torch.Generator
) -> torch.Tensor:
    """Augmented copies of stamps (B, 3, H, W) in nanomaggies; `preprocess` tells each stamp's background noise."""
    if settings.dihedral:
        element_B = torch.randint(DIHEDRAL, (len(x_B3HW),), generator=generator, device=generator.device)
        x_B3HW = dihedral_each(x_B3HW, element_B.to(x_B3HW.device))
    if settings.shift_pix:
        x_B3HW = _shift(x_B3HW, settings.shift_pix, generator)
    if settings.psf_blur_sigma_pix > 0:
        x_B3HW = _blur(x_B3HW, settings.psf_blur_sigma_pix, generator)
    if settings.noise_sigma > 0:
        _, sigma_B3 = preprocess.background(x_B3HW)
        noise = torch.randn(x_B3HW.shape, generator=generator, device=generator.device).to(x_B3HW.device)
        x_B3HW = x_B3HW + settings.noise_sigma * sigma_B3 * noise
    if settings.centre_degradation_probability > 0:
        x_B3HW = _degrade_centre(
            x_B3HW, settings.centre_degradation_probability, settings.centre_degradation_radius_pix, generator
        )
    return x_B3HW
