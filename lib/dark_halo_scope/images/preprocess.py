"""Preprocess6CH: nanomaggies to the network's channels, on the device, the same module in training and inference."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.control_sources import LibrarySource, control_source
from dark_halo_scope.images.medians import lower_median
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES, DIAGNOSTIC_SOURCES, PreprocessSettings

MAD_TO_SIGMA = 1.4826  # a Gaussian's standard deviation per median absolute deviation
BANDS = 3
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


def arcsinh(x: torch.Tensor) -> torch.Tensor:
    """Area hyperbolic sine of float32 numbers below 1e19, to 2e-7 of itself, and exactly odd.

    torch.asinh takes one number at a time on a CPU; these steps take vectors. They are done in place, which saves
    another half and leaves no gradient of `x`.
    """
    square = x * x
    root = square.add(1).sqrt_().add_(1)
    return square.div_(root).add_(x.abs()).log1p_().copysign_(x)


def band_statistics(parts: Iterable[NDArray[np.floating]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of all pixels of each band of images (N, 3, H, W) that come in parts.

    Parts are summed up by their own means (Chan et al. 1983): squares of bright cores would swallow the sky's.
    """
    count, mean_3, square_3 = 0, np.zeros(BANDS), np.zeros(BANDS)
    for part in parts:
        x_3P = np.moveaxis(np.asarray(part, np.float64), 1, 0).reshape(BANDS, -1)
        number = x_3P.shape[1]
        if not number:
            continue
        own_3 = x_3P.mean(1)
        step_3 = own_3 - mean_3
        square_3 += ((x_3P - own_3[:, None]) ** 2).sum(1) + step_3**2 * count * number / (count + number)
        mean_3 = mean_3 + step_3 * number / (count + number)
        count += number
    return mean_3.tolist(), np.sqrt(square_3 / max(count, 1)).tolist()


class Preprocess6CH(torch.nn.Module):
    """Robust background normalisation, stretch, high-pass residual channels and control channels.

    Channels 0-2 are grz with the median and the scaled MAD of an outer annulus removed, so that neither host nor arc
    enters the scale, then clipped or asinh-stretched. `residual` adds those minus their Gaussian blur, `control_source`
    a control image with the background and scale of the stamp. Every step is the same for each orientation of the
    image: preprocessing commutes with flips and quarter turns, but for the library galaxy of `matched_lrg`, which is
    the same one for each.

    With `normalisation: training_set` the median and the MAD give way to mean and standard deviation of training's
    pixels, band by band, which `set_statistics` takes and `state_dict` holds.
    """

    annulus: torch.Tensor
    blur: torch.Tensor
    band_mean: torch.Tensor
    band_std: torch.Tensor

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
        annulus = np.flatnonzero(mask.ravel())
        self.register_buffer("annulus", torch.from_numpy(annulus), persistent=False)
        self.register_buffer("blur", torch.from_numpy(blur.astype(np.float32)), persistent=False)
        named = settings.control_source
        self.control = None if named is None else control_source(named, size, annulus, blur)
        self._has_statistics = False
        if self.needs_statistics:
            self.register_buffer("band_mean", torch.zeros(BANDS))
            self.register_buffer("band_std", torch.ones(BANDS))

    @property
    def channels(self) -> int:
        """Number of channels made."""
        return self.settings.channels

    @property
    def needs_controls(self) -> bool:
        """Whether each stamp's own control must be given."""
        return self.control is not None and self.control.needs_controls

    @property
    def needs_library(self) -> bool:
        """Whether `set_library` must be called before the first stamp."""
        return self.control is not None and self.control.needs_library

    @property
    def needs_statistics(self) -> bool:
        """Whether `set_statistics` must be called before the first stamp."""
        return self.settings.normalisation == "training_set"

    @property
    def learns(self) -> bool:
        """Whether anything is learned of training's images, which travels with the weights."""
        return self.needs_library or self.needs_statistics

    def set_statistics(self, mean_3: Sequence[float], std_3: Sequence[float]) -> None:
        """Normalise with these, nanomaggies per pixel by band; see `band_statistics`.

        Raises:
            BadInputError: not one finite mean and one positive deviation a band, or a normalisation that has none.
        """
        mean, std = np.asarray(mean_3, np.float64), np.asarray(std_3, np.float64)
        if not self.needs_statistics:
            raise BadInputError(f"The normalisation {self.settings.normalisation} has no statistics of training.")
        if not (mean.shape == std.shape == (BANDS,) and np.isfinite([mean, std]).all() and (std > 0).all()):
            raise BadInputError(
                "Statistics of training images must be a finite mean and a positive deviation a band, not "
                f"{mean.tolist()} and {std.tolist()}; look for images that are constant or not finite."
            )
        self.band_mean.copy_(torch.from_numpy(mean))
        self.band_std.copy_(torch.from_numpy(std))
        self._has_statistics = True

    @torch.no_grad()
    def set_library(self, controls_L3HW: NDArray[np.floating]) -> None:
        """Learn other galaxies from training controls (see `control_sources.control_library`), nanomaggies per pixel.

        Raises:
            BadInputError: stamps of another size, or none that can be used.
        """
        if not isinstance(self.control, LibrarySource):
            raise BadInputError(f"The control source {self.settings.control_source} has no library of galaxies.")
        x_L3HW = self._checked(torch.from_numpy(np.asarray(controls_L3HW, dtype=np.float32)).to(self.annulus.device))
        median, sigma = self.background(x_L3HW)
        self.control.learn((x_L3HW - median) / sigma, sigma)

    def restore_learned(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what another instance's `state_dict` learned, which is empty where nothing is.

        Raises:
            BadInputError: there is none where one is needed, or one where none is known.
        """
        expected = set(self.state_dict())
        if set(tensors) != expected:
            raise BadInputError(
                f"The control source {self.settings.control_source} with the normalisation "
                f"{self.settings.normalisation} keeps {sorted(expected) or 'nothing'} and "
                f"{sorted(tensors) or 'nothing'} was saved; train again."
            )
        if self.needs_statistics:
            self.set_statistics(tensors["band_mean"].tolist(), tensors["band_std"].tolist())
        if isinstance(self.control, LibrarySource):
            self.control.restore(tensors["control.library"])

    def background(self, x_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Median and noise sigma (B, 3, 1, 1) of the outer annulus, in nanomaggies per pixel."""
        # On the CPU seven times as fast as indexing three dimensions.
        ring_BCN = x_B3HW.flatten(2).flatten(0, 1).index_select(1, self.annulus).unflatten(0, x_B3HW.shape[:2])
        median_BC1 = lower_median(ring_BCN)
        mad_BC1 = lower_median((ring_BCN - median_BC1).abs())
        sigma_BC1 = MAD_TO_SIGMA * mad_BC1 + SIGMA_FLOOR_NMGY
        return median_BC1[..., None], sigma_BC1[..., None]

    def forward(
        self, x_B3HW: torch.Tensor, controls_B3HW: torch.Tensor | None = None, check: bool = True
    ) -> torch.Tensor:
        """Channels (B, C, H, W) float32 of stamps (B, 3, H, W) in nanomaggies per pixel, bands grz.

        Args:
            x_B3HW: the stamps.
            controls_B3HW: the image of each without its arc, where the source is `paired_oracle`; else not looked at.
            check: refuse pixels that are not finite, which waits for the device; else their stamps become NaN channels.

        Raises:
            BadInputError: wrong shape, controls or a library that are missing, or a pixel that is not finite; such
                stamps are excluded before, never scored.
        """
        settings = self.settings
        x_B3HW = self._checked(x_B3HW, check)
        median, sigma = self._scale(x_B3HW)
        y_B3HW = (x_B3HW - median) / sigma if settings.subtract_median else x_B3HW / sigma
        stretched_B3HW = self._stretch(y_B3HW)
        channels = [stretched_B3HW]
        if settings.residual:
            base_B3HW = stretched_B3HW if settings.residual_of == "stretched" else y_B3HW
            residual_B3HW = base_B3HW - self.blur @ base_B3HW @ self.blur.T
            channels.append(self._stretch(residual_B3HW) if settings.residual_of == "linear" else residual_B3HW)
        if self.control is not None:
            own_B3HW = self._own_controls(controls_B3HW, len(x_B3HW), check)
            own_B3HW = None if own_B3HW is None else (own_B3HW - median) / sigma
            level = 0 if settings.subtract_median else median / sigma
            channels.append(self._stretch(self.control((x_B3HW - median) / sigma, sigma, own_B3HW) + level))
        return channels[0] if len(channels) == 1 else torch.cat(channels, dim=1)

    def _scale(self, x_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Level and unit of each band, broadcastable to the stamps: each stamp's own background, or training's."""
        if not self.needs_statistics:
            return self.background(x_B3HW)
        if not self._has_statistics:
            raise BadInputError(
                "The normalisation training_set has no statistics yet; call set_statistics with those of training."
            )
        return self.band_mean[:, None, None], self.band_std[:, None, None]

    def _checked(self, x_B3HW: torch.Tensor, check: bool = True) -> torch.Tensor:
        if x_B3HW.ndim != 4 or x_B3HW.shape[1:] != (3, self.size, self.size):
            raise BadInputError(
                f"Preprocessing was set up for stamps of shape (B, 3, {self.size}, {self.size}) and got "
                f"{tuple(x_B3HW.shape)}; cut stamps of that size."
            )
        x_B3HW = x_B3HW.float()
        if not check:
            # A sum is finite where its terms are, and takes a tenth of the time of looking at each.
            finite_B111 = torch.isfinite(x_B3HW.sum((1, 2, 3), keepdim=True))
            return torch.where(finite_B111, x_B3HW, torch.nan)
        if not bool(torch.isfinite(x_B3HW.sum())):
            bad = (~torch.isfinite(x_B3HW)).flatten(1).any(1).nonzero().flatten().tolist()
            if bad:
                raise BadInputError(f"Stamps {bad[:10]} of a batch hold pixels that are not finite; exclude them.")
        return x_B3HW

    def _own_controls(self, controls_B3HW: torch.Tensor | None, count: int, check: bool) -> torch.Tensor | None:
        """The stamps' own controls where the source wants them; a source that lacks what it needs is an error."""
        named = self.settings.control_source
        if isinstance(self.control, LibrarySource) and not len(self.control.library):
            raise BadInputError(
                f"The control source {named} has no library of galaxies yet; call set_library with training's controls."
            )
        if not self.needs_controls:
            return None
        if controls_B3HW is None or len(controls_B3HW) != count:
            known = ", ".join(name for name in CONTROL_SOURCES if name not in DIAGNOSTIC_SOURCES)
            raise BadInputError(
                f"The control source {named} needs the image without its arc for each stamp, which no image on the sky "
                f"has: it is a diagnostic and never deployed; sources that can be deployed are {known}."
            )
        return self._checked(controls_B3HW, check)

    def _stretch(self, y_B3HW: torch.Tensor) -> torch.Tensor:
        settings = self.settings
        if settings.stretch == "none":
            return y_B3HW
        if settings.stretch == "clip":
            return y_B3HW.clamp(settings.clip_low, settings.clip_high)
        return arcsinh(y_B3HW / settings.asinh_softening)
