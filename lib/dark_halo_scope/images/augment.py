"""Augmentation on the device, every draw from a passed torch.Generator.

The images are in nanomaggies, before preprocessing, so that noise and blur mean what they say. Draws are made apart
from what is done with them: a stamp and its control share them, noise included, and each of several processes can make
those of the whole batch and use its own share.

Shape legend: B images, 3 bands, H rows, W columns of square stamps.
"""

from dataclasses import dataclass, fields, replace

import torch

from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import AugmentSettings
from dark_halo_scope.images.symmetries import DIHEDRAL, dihedral


@dataclass(frozen=True)
class Draws:
    """What happens to each image; None: nothing of the kind.

    element: symmetry of the square, 0 to 7, (B,).
    corner: first row and column of the image in the stamp with its mirrored margin, pixels, (B, 2).
    blur: sigma of the Gaussian, pixels, (B,).
    noise: standard normal, (B, 3, H, W).
    degraded: whether the core is replaced by its mean, (B,).
    """

    element: torch.Tensor | None = None
    corner: torch.Tensor | None = None
    blur: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    degraded: torch.Tensor | None = None

    def take(self, index_N: torch.Tensor | slice) -> "Draws":
        """The draws of some of the images."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[index_N] for name, value in values.items() if value is not None})


def draw_augmentation(
    shape: tuple[int, ...], settings: AugmentSettings, generator: torch.Generator, device: torch.device | None = None
) -> Draws:
    """Draws for a batch of this shape (B, 3, H, W).

    Noise is drawn where the images lie: a CUDA device's own generator is seeded from the passed one, because to draw it
    on the CPU would cost more than the network's step. All other draws are the same on every device.
    """
    count = shape[0]
    device = generator.device if device is None else device
    drawn: dict[str, torch.Tensor] = {}

    def uniform() -> torch.Tensor:
        return on_device(torch.rand(count, generator=generator, device=generator.device), device)

    if settings.dihedral:
        elements = torch.randint(DIHEDRAL, (count,), generator=generator, device=generator.device)
        drawn["element"] = on_device(elements, device)
    if settings.shift_pix:
        corners = torch.randint(2 * settings.shift_pix + 1, (count, 2), generator=generator, device=generator.device)
        drawn["corner"] = on_device(corners, device)
    if settings.psf_blur_sigma_pix > 0:
        drawn["blur"] = uniform() * settings.psf_blur_sigma_pix
    if settings.noise_sigma > 0:
        source = generator
        if device.type == "cuda" and generator.device.type != "cuda":
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            source = torch.Generator(device).manual_seed(seed)
        drawn["noise"] = on_device(torch.randn(shape, generator=source, device=source.device), device)
    if settings.centre_degradation_probability > 0:
        drawn["degraded"] = uniform() < settings.centre_degradation_probability
    return Draws(**drawn)


def on_device(drawn: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same on a device; from the host's pageable memory a copy would wait until a GPU has finished its work."""
    pinned = device.type == "cuda" and drawn.device.type == "cpu"
    return (drawn.pin_memory() if pinned else drawn).to(device, non_blocking=True)


def dihedral_each(x_BCHW: torch.Tensor, element_B: torch.Tensor) -> torch.Tensor:
    """Apply symmetry `element_B[i]` to image i."""
    if x_BCHW.device.type != "cpu":
        return dihedral_by_choice(x_BCHW, element_B)
    out_BCHW = torch.empty_like(x_BCHW)
    for element in range(DIHEDRAL):
        chosen = (element_B == element).nonzero().flatten()
        out_BCHW[chosen] = dihedral(x_BCHW[chosen], element)
    return out_BCHW


def dihedral_by_choice(x_BCHW: torch.Tensor, element_B: torch.Tensor) -> torch.Tensor:
    """The same by three choices for the whole batch, where making groups would let the device wait for the host.

    On a CPU groups are faster.
    """
    element_B111 = element_B.to(x_BCHW.device)[:, None, None, None]
    x_BCHW = torch.where((element_B111 & 1).bool(), x_BCHW.flip(-1), x_BCHW)
    x_BCHW = torch.where((element_B111 & 2).bool(), x_BCHW.flip(-2), x_BCHW)
    return torch.where((element_B111 & 4).bool(), x_BCHW.transpose(-1, -2), x_BCHW).contiguous()


def _shift(x_BCHW: torch.Tensor, corner_B2: torch.Tensor, largest_pix: int) -> torch.Tensor:
    """Move image i by whole pixels; what comes in at an edge mirrors what is there."""
    rows_BH, columns_BW = (
        _mirrored(corner_B2[:, axis, None] - largest_pix + torch.arange(length, device=corner_B2.device), length)
        for axis, length in enumerate(x_BCHW.shape[-2:])
    )
    batch_B = torch.arange(len(x_BCHW), device=x_BCHW.device)
    band_C = torch.arange(x_BCHW.shape[1], device=x_BCHW.device)
    return x_BCHW[
        batch_B[:, None, None, None], band_C[:, None, None], rows_BH[:, None, :, None], columns_BW[:, None, None, :]
    ]


def _mirrored(index: torch.Tensor, length: int) -> torch.Tensor:
    """Indices into an axis whose outside mirrors its inside about the centre of the edge pixel."""
    return (length - 1) - ((length - 1) - index.abs()).abs()


def _blur_matrix(sigma_B: torch.Tensor, size: int) -> torch.Tensor:
    """Matrices (B, 1, H, H) that blur a column of pixels with a Gaussian, edges mirrored half a pixel outside."""
    sigma_B = sigma_B.clamp_min(1e-3)
    taps = torch.arange(-3, 4, device=sigma_B.device)
    kernel_BK = torch.exp(-0.5 * (taps / sigma_B[:, None]) ** 2)
    kernel_BK = kernel_BK / kernel_BK.sum(1, keepdim=True)
    matrix_BHH = torch.zeros(len(sigma_B), size, size, device=sigma_B.device)
    rows = torch.arange(size, device=sigma_B.device)
    for index, tap in enumerate(range(-3, 4)):
        columns = rows + tap
        columns = torch.where(columns < 0, -1 - columns, torch.where(columns >= size, 2 * size - 1 - columns, columns))
        matrix_BHH[:, rows, columns] += kernel_BK[:, index : index + 1]
    return matrix_BHH[:, None]


def _degrade_centre(x_BCHW: torch.Tensor, degraded_B: torch.Tensor, radius_pix: float) -> torch.Tensor:
    """Replace the core of some images by its mean, so that its detail cannot decide."""
    size = x_BCHW.shape[-1]
    offset = torch.arange(size, device=x_BCHW.device) - (size - 1) / 2
    core_HW = (offset[:, None] ** 2 + offset[None, :] ** 2) < radius_pix**2
    mean_BC11 = (x_BCHW * core_HW).sum((-2, -1), keepdim=True) / core_HW.sum()
    return torch.where(degraded_B[:, None, None, None] & core_HW, mean_BC11, x_BCHW)


def _moved(
    x_BCHW: torch.Tensor, draws: Draws, settings: AugmentSettings, blur_B1HH: torch.Tensor | None
) -> torch.Tensor:
    if draws.element is not None:
        x_BCHW = dihedral_each(x_BCHW, draws.element)
    if draws.degraded is not None:
        # Before the galaxy leaves the middle: it is its core that must not decide.
        x_BCHW = _degrade_centre(x_BCHW, draws.degraded, settings.centre_degradation_radius_pix)
    if draws.corner is not None:
        x_BCHW = _shift(x_BCHW, draws.corner, settings.shift_pix)
    return x_BCHW if blur_B1HH is None else blur_B1HH @ x_BCHW @ blur_B1HH.transpose(-1, -2)


def apply_augmentation(
    x_B3HW: torch.Tensor,
    draws: Draws,
    settings: AugmentSettings,
    preprocess: Preprocess6CH,
    controls_B3HW: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stamps and their controls after the same draws, which `draw_augmentation` made for them.

    Every step is linear in the pixels and noise has the stamp's background for both: stamp minus control becomes the
    augmented difference.
    """
    blur_B1HH = None if draws.blur is None else _blur_matrix(draws.blur, x_B3HW.shape[-1])
    x_B3HW = _moved(x_B3HW, draws, settings, blur_B1HH)
    if controls_B3HW is not None:
        controls_B3HW = _moved(controls_B3HW, draws, settings, blur_B1HH)
    if draws.noise is not None:
        _, sigma_B3 = preprocess.background(x_B3HW)
        noise_B3HW = settings.noise_sigma * sigma_B3 * draws.noise
        x_B3HW = x_B3HW + noise_B3HW
        controls_B3HW = None if controls_B3HW is None else controls_B3HW + noise_B3HW
    return x_B3HW, controls_B3HW


def augment(
    x_B3HW: torch.Tensor,
    settings: AugmentSettings,
    preprocess: Preprocess6CH,
    generator: torch.Generator,
    controls_B3HW: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Augmented copies of stamps (B, 3, H, W) in nanomaggies, and of their controls where given, under one draw.

    `preprocess` tells each stamp's background noise.
    """
    draws = draw_augmentation(tuple(x_B3HW.shape), settings, generator, x_B3HW.device)
    return apply_augmentation(x_B3HW, draws, settings, preprocess, controls_B3HW)
