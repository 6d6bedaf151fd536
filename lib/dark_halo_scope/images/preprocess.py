"""Preprocess6CH: nanomaggies to the network's channels, on the device, the same module in training and inference."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess_config import PreprocessSettings

MAD_TO_SIGMA = 1.4826  # a Gaussian's standard deviation per median absolute deviation
SIGMA_FLOOR_NMGY = 1e-6  # keeps a constant annulus finite; contract section 5


def annulus_mask(size: int, inner_pix: float, outer_pix: float | None = None) -> NDArray[np.bool_]:
    """Pixels with inner <= r < outer of a (size, size) stamp, r from the centre (size - 1) / 2, in pixels."""
    offset = np.arange(size) - (size - 1) / 2
    radius = np.hypot(offset[:, None], offset[None, :])
    return (radius >= inner_pix) & (radius < (np.inf if outer_pix is None else outer_pix))


@lru_cache(maxsize=16)
def blur_matrix(size: int, sigma_pix: float, truncate: float) -> NDArray[np.float64]:
    """Matrix (size, size) that blurs a column of pixels with a Gaussian, edges mirrored half a pixel outside.

    Equal to `scipy.ndimage.gaussian_filter1d(mode="reflect", truncate=truncate)`; as a matrix it costs two small matrix
    products per image, edges included.
    """
    radius = int(truncate * sigma_pix + 0.5)
    taps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (taps / sigma_pix) ** 2)
    kernel /= kernel.sum()
    matrix = np.zeros((size, size))
    for row in range(size):
        folded = (row + taps) % (2 * size)
        np.add.at(matrix[row], np.where(folded < size, folded, 2 * size - 1 - folded), kernel)
    matrix.setflags(write=False)
    return matrix


class Preprocess6CH(torch.nn.Module):
    """Robust background normalisation, stretch, and high-pass residual channels.

    Channels 0-2 are grz with the median and the scaled MAD of an outer annulus removed, so that neither host nor arc
    enters the scale, then clipped or asinh-stretched; channels 3-5 are those minus their Gaussian blur. Every step is
    the same for each orientation of the image: preprocessing commutes with flips and quarter turns.
    """

    annulus: torch.Tensor
    blur: torch.Tensor

    def __init__(self, settings: PreprocessSettings, size: int = 64) -> None:
        """Prepare for stamps of `size` pixels.

        Raises:
            BadInputError: the annulus holds fewer than 100 pixels of such a stamp, too few for a noise estimate.
        """
        super().__init__()
        self.settings = settings
        self.size = size
        scale = size / settings.reference_size
        outer = None if settings.annulus_outer_pix is None else settings.annulus_outer_pix * scale
        mask = annulus_mask(size, settings.annulus_inner_pix * scale, outer)
        if int(mask.sum()) < 100:
            raise BadInputError(
                f"The background annulus holds {int(mask.sum())} pixels of a {size}-pixel stamp, fewer than 100; "
                "make annulus_inner_pix smaller."
            )
        blur = blur_matrix(size, settings.residual_sigma_pix, settings.residual_truncate)
        self.register_buffer("annulus", torch.from_numpy(np.flatnonzero(mask.ravel())), persistent=False)
        self.register_buffer("blur", torch.from_numpy(blur.astype(np.float32)), persistent=False)

    @property
    def channels(self) -> int:
        """Number of channels made."""
        return self.settings.channels

    def background(self, x_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Median and noise sigma (B, 3, 1, 1) of the outer annulus, in nanomaggies per pixel."""
        ring_BCN = x_B3HW.flatten(2)[:, :, self.annulus]
        median_BC1 = ring_BCN.median(dim=2, keepdim=True).values
        mad_BC1 = (ring_BCN - median_BC1).abs().median(dim=2, keepdim=True).values
        sigma_BC1 = MAD_TO_SIGMA * mad_BC1 + SIGMA_FLOOR_NMGY
        return median_BC1[..., None], sigma_BC1[..., None]

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """Channels (B, 6, H, W) float32 of stamps (B, 3, H, W) in nanomaggies per pixel, bands grz.

        Raises:
            BadInputError: wrong shape, or a pixel that is not finite; such stamps are excluded before, never scored.
        """
        if x_B3HW.ndim != 4 or x_B3HW.shape[1:] != (3, self.size, self.size):
            raise BadInputError(
                f"Preprocessing was set up for stamps of shape (B, 3, {self.size}, {self.size}) and got "
                f"{tuple(x_B3HW.shape)}; cut stamps of that size."
            )
        x_B3HW = x_B3HW.float()
        if not bool(torch.isfinite(x_B3HW).all()):
            bad = (~torch.isfinite(x_B3HW)).flatten(1).any(1).nonzero().flatten().tolist()
            raise BadInputError(f"Stamps {bad[:10]} of a batch hold pixels that are not finite; exclude them first.")
        settings = self.settings
        median, sigma = self.background(x_B3HW)
        y_B3HW = (x_B3HW - median) / sigma if settings.subtract_median else x_B3HW / sigma
        stretched_B3HW = self._stretch(y_B3HW)
        if not settings.residual:
            return stretched_B3HW
        base_B3HW = stretched_B3HW if settings.residual_of == "stretched" else y_B3HW
        residual_B3HW = base_B3HW - self.blur @ base_B3HW @ self.blur.T
        if settings.residual_of == "linear":
            residual_B3HW = self._stretch(residual_B3HW)
        return torch.cat([stretched_B3HW, residual_B3HW], dim=1)

    def _stretch(self, y_B3HW: torch.Tensor) -> torch.Tensor:
        settings = self.settings
        if settings.stretch == "clip":
            return y_B3HW.clamp(settings.clip_low, settings.clip_high)
        return torch.asinh(y_B3HW / settings.asinh_softening)
