"""Control channels of paired networks: a second image of what a galaxy would look like without an arc.

Every source but `paired_oracle` is computed from the stamp itself, or from it and a library of other galaxies, the same
way for a training image, a gate's hybrid and a candidate on the sky. Sources take and give noise units of the stamp's
background, median removed, so that a control has the stamp's scale and never one of its own.

Shape legend: B stamps, 3 bands g, r, z, H rows, W columns of square stamps, R rings, K pixels of the largest ring,
L galaxies of the library, N pixels of the background annulus.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.medians import lower_median
from dark_halo_scope.images.preprocess_config import ControlSourceName
from dark_halo_scope.images.symmetries import DIHEDRAL, dihedral

MATCH_RADIUS_PIX = 8.0  # profiles are compared out to here: 2.1", where a galaxy stands above its noise
CORE_RADIUS_PIX = 4.0  # whose flux scales the median galaxy
# Background noise of a stamp and of a library galaxy that agree better than this are of the same piece of sky. On the
# embedded survey others stay below 0.39, and the same galaxy above 0.56 under the widest blur of augmentation.
SAME_SKY_CORRELATION = 0.45
NOISE_CLIP = 4.5  # median absolute deviations, or 3 sigma: neighbours would decide the correlation otherwise
CANDIDATES = 4  # stamps looked at for each one of the library: one galaxy bears several arcs
R_BAND = 1


def _ascending(values: torch.Tensor) -> torch.Tensor:
    if values.device.type != "cpu" or values.requires_grad:
        return values.sort(dim=-1).values
    # NumPy sorts short rows with the processor's vectors, in a sixth of torch's time.
    return torch.from_numpy(np.sort(values.numpy(), axis=-1))


class RingMedians(torch.nn.Module):
    """Medians over rings one pixel wide about the stamp's centre, out to its edge: an arc is never half of a ring."""

    index: torch.Tensor
    member: torch.Tensor
    middle: torch.Tensor
    count: torch.Tensor
    spread: torch.Tensor

    def __init__(self, size: int) -> None:
        """Prepare for stamps of `size` pixels."""
        super().__init__()
        offset = np.arange(size) - (size - 1) / 2
        radius = np.hypot(offset[:, None], offset[None, :]).ravel()
        rings = [np.flatnonzero((radius >= ring) & (radius < ring + 1)) for ring in range(size // 2)]
        count = np.array([len(ring) for ring in rings])
        index = np.zeros((len(rings), count.max()), dtype=np.int64)
        for row, ring in zip(index, rings, strict=True):
            row[: len(ring)] = ring
        # An image of the profile is linear between the rings' mean radii and constant beyond the first and the last.
        nodes = np.array([radius[ring].mean() for ring in rings])
        inner = np.clip(np.searchsorted(nodes, radius, side="right") - 1, 0, len(nodes) - 2)
        outer_weight = np.clip((radius - nodes[inner]) / (nodes[inner + 1] - nodes[inner]), 0, 1)
        spread, pixel = np.zeros((len(nodes), size * size)), np.arange(size * size)
        spread[inner, pixel], spread[inner + 1, pixel] = 1 - outer_weight, outer_weight
        self.size = size
        for name, values in {
            "index": index,
            "member": np.arange(count.max()) < count[:, None],
            "middle": np.stack([(count - 1) // 2, count // 2], axis=1),
            "count": count.astype(np.float32),
            "spread": spread.astype(np.float32),
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Profile (B, C, R): the median of each ring, of an even number of pixels the mean of the middle two."""
        pixels_NP = x_BCHW.flatten(2).flatten(0, 1)
        values_NRK = pixels_NP.index_select(1, self.index.flatten()).unflatten(1, self.index.shape)
        ordered_NRK = _ascending(values_NRK.masked_fill(~self.member, torch.inf))
        profile_NR = ordered_NRK.gather(2, self.middle.expand(len(ordered_NRK), -1, -1)).mean(2)
        return profile_NR.unflatten(0, x_BCHW.shape[:2])

    def image(self, profile_BCR: torch.Tensor) -> torch.Tensor:
        """The round image (B, C, H, W) of a profile."""
        return (profile_BCR @ self.spread).unflatten(-1, (self.size, self.size))

    def core_flux(self, profile_BCR: torch.Tensor) -> torch.Tensor:
        """Light (B, C, 1, 1) inside CORE_RADIUS_PIX, of the profile and hence without an arc's."""
        rings = int(CORE_RADIUS_PIX)
        return (profile_BCR[..., :rings] * self.count[:rings]).sum(-1)[..., None, None]


class ControlSource(torch.nn.Module, ABC):
    """Makes control images (B, 3, H, W) of stamps, both in noise units of the stamps' background."""

    needs_controls = False
    needs_library = False

    @abstractmethod
    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        """Controls of stamps `y_B3HW`, whose background noise is `sigma_B3` (B, 3, 1, 1) nanomaggies per pixel."""


class DuplicateSelf(ControlSource):
    """The stamp again: the same network, its control channels without information."""

    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        return y_B3HW


class Rot180Self(ControlSource):
    """The stamp turned by half a circle: a galaxy is symmetric, an arc is not."""

    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        return y_B3HW.flip((-2, -1))


class AzimuthalMedianSelf(ControlSource):
    """The round galaxy with the stamp's radial profile of medians."""

    def __init__(self, size: int) -> None:
        """Prepare for stamps of `size` pixels."""
        super().__init__()
        self.rings = RingMedians(size)

    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        return self.rings.image(self.rings(y_B3HW))


class PairedOracle(ControlSource):
    """The very image into which the arc was injected. Stamp minus control is the arc without noise: a diagnostic."""

    needs_controls = True

    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        assert controls_B3HW is not None  # preprocessing refuses before
        return controls_B3HW


class LibrarySource(ControlSource):
    """A source that knows other galaxies. What it keeps of them travels with the weights."""

    needs_library = True
    library: torch.Tensor

    def __init__(self, size: int) -> None:
        """Prepare for stamps of `size` pixels."""
        super().__init__()
        self.rings = RingMedians(size)
        self.register_buffer("library", torch.zeros(0, 3, size, size), persistent=True)

    def learn(self, y_L3HW: torch.Tensor, sigma_L3: torch.Tensor) -> None:
        """Keep galaxies without arcs, given in noise units with the background noise of each."""
        self.restore(self.condensed(y_L3HW, sigma_L3))

    def restore(self, library: torch.Tensor) -> None:
        """Take over what another instance kept."""
        if library.ndim != 4 or library.shape[1:] != self.library.shape[1:] or not len(library):
            raise BadInputError(
                f"A library of control galaxies must have shape (L, 3, {self.rings.size}, {self.rings.size}) and has "
                f"{tuple(library.shape)}; make it of stamps of that size."
            )
        self.library = library.to(self.library.device)
        self.prepare()

    @abstractmethod
    def condensed(self, y_L3HW: torch.Tensor, sigma_L3: torch.Tensor) -> torch.Tensor:
        """What is kept of the galaxies."""

    def prepare(self) -> None:
        """Derive from the library what `forward` compares stamps with."""


class MatchedLRG(LibrarySource):
    """The library's galaxy with the most similar radial profile in three bands, brightness and noise its own.

    Profiles are medians over rings, so that an arc hardly changes which galaxy is chosen. A library made of training
    controls holds the very galaxies that arcs were injected into: one whose background shows the stamp's own noise, in
    any orientation, is not chosen, or this would be `paired_oracle` in training and something else on the sky.
    """

    profile: torch.Tensor
    softening: torch.Tensor
    noise: torch.Tensor
    annulus: torch.Tensor
    blur: torch.Tensor

    def __init__(self, size: int, annulus_N: NDArray[np.int64], blur_HH: NDArray[np.float64]) -> None:
        """Prepare for stamps of `size` pixels; see `control_source`."""
        super().__init__(size)
        self.library = self.library.half()
        self.register_buffer("annulus", torch.from_numpy(annulus_N), persistent=False)
        self.register_buffer("blur", torch.from_numpy(blur_HH.astype(np.float32)), persistent=False)
        for name in ("profile", "softening", "noise"):
            self.register_buffer(name, torch.zeros(0), persistent=False)

    def condensed(self, y_L3HW: torch.Tensor, sigma_L3: torch.Tensor) -> torch.Tensor:
        """The galaxies in nanomaggies, backgrounds removed, as packed arrays have them."""
        return (y_L3HW * sigma_L3).half()

    def prepare(self) -> None:
        galaxies_L3HW = self.library.float()
        ring_L3N = galaxies_L3HW.flatten(2)[:, :, self.annulus]
        scale_3L = lower_median(ring_L3N.abs())[..., 0].T
        self.softening = lower_median(scale_3L).clamp_min(torch.finfo(torch.float32).tiny)
        self.profile = self._features(self.rings(galaxies_L3HW))
        self.noise = torch.cat([self._noise(dihedral(galaxies_L3HW, element)) for element in range(DIHEDRAL)])

    def _features(self, profile_BCR: torch.Tensor) -> torch.Tensor:
        """Profiles (B, F) in which both faint outskirts and bright cores count."""
        return torch.asinh(profile_BCR[..., : int(MATCH_RADIUS_PIX)] / self.softening).flatten(1)

    def _noise(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B, N) of the r band's background, without the outskirts of galaxies, which are much alike."""
        band_BHW = x_B3HW[:, R_BAND]
        ring_BN = (band_BHW - self.blur @ band_BHW @ self.blur.T).flatten(1)[:, self.annulus]
        scale_B1 = lower_median(ring_BN.abs()).clamp_min(torch.finfo(torch.float32).tiny)
        clipped_BN = (ring_BN / scale_B1).clamp(-NOISE_CLIP, NOISE_CLIP)
        return torch.nn.functional.normalize(clipped_BN - clipped_BN.mean(dim=1, keepdim=True), dim=1)

    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        features_BF = self._features(self.rings(y_B3HW) * sigma_B3[..., 0])
        distance_BL = torch.cdist(features_BF, self.profile)
        alike_BL = (self._noise(y_B3HW) @ self.noise.T).unflatten(1, (DIHEDRAL, -1)).amax(1)
        nearest_B = distance_BL.masked_fill(alike_BL > SAME_SKY_CORRELATION, torch.inf).argmin(dim=1)
        return self.library[nearest_B].float() / sigma_B3


class MedianLRGTemplate(LibrarySource):
    """The library's median galaxy, made symmetric, at the stamp's brightness in each band."""

    def condensed(self, y_L3HW: torch.Tensor, sigma_L3: torch.Tensor) -> torch.Tensor:
        """The median galaxy (1, 3, H, W), of core flux 1 in each band."""
        galaxies_L3HW = y_L3HW * sigma_L3
        flux_L3 = self.rings.core_flux(self.rings(galaxies_L3HW))
        bright_L = (flux_L3 > 0).flatten(1).all(1)
        if not bool(bright_L.any()):
            raise BadInputError("No stamp of the control library holds a galaxy; make it of training controls.")
        template_13HW = lower_median((galaxies_L3HW / flux_L3)[bright_L].movedim(0, -1)).movedim(-1, 0)
        template_13HW = torch.stack([dihedral(template_13HW, element) for element in range(DIHEDRAL)]).mean(0)
        return template_13HW / self.rings.core_flux(self.rings(template_13HW))

    def forward(self, y_B3HW: torch.Tensor, sigma_B3: torch.Tensor, controls_B3HW: torch.Tensor | None) -> torch.Tensor:
        return self.rings.core_flux(self.rings(y_B3HW)) * self.library


def control_source(
    name: ControlSourceName, size: int, annulus_N: NDArray[np.int64], blur_HH: NDArray[np.float64]
) -> ControlSource:
    """The source called `name`.

    Args:
        name: see the classes.
        size: pixels of a stamp's side.
        annulus_N: pixels of the background, by their place in the flattened stamp.
        blur_HH: matrix that blurs a column of pixels; what it takes away from the background is its noise.
    """
    match name:
        case "azimuthal_median_self":
            return AzimuthalMedianSelf(size)
        case "rot180_self":
            return Rot180Self()
        case "duplicate_self":
            return DuplicateSelf()
        case "paired_oracle":
            return PairedOracle()
        case "matched_lrg":
            return MatchedLRG(size, annulus_N, blur_HH)
        case "median_lrg_template":
            return MedianLRGTemplate(size)


def control_library(controls_N3HW: NDArray[np.floating], count: int, rng: np.random.Generator) -> NDArray[np.float16]:
    """Up to `count` different stamps (L, 3, H, W) without a lens, for `Preprocess6CH.set_library`.

    Equal stamps are taken once, because a galaxy that bears several arcs has one control for each.

    Args:
        controls_N3HW: the training split's controls, in nanomaggies per pixel; a memory map is not read as a whole.
        count: how many at most.
        rng: chooses them.

    Raises:
        BadInputError: no stamp is finite.
    """
    chosen = np.sort(rng.permutation(len(controls_N3HW))[: CANDIDATES * count])
    stamps = np.asarray(controls_N3HW[chosen], dtype=np.float16)
    stamps = stamps[np.isfinite(stamps).all(axis=(1, 2, 3))]
    if not len(stamps):
        raise BadInputError("No training control is finite: a library of control galaxies cannot be made.")
    raw = stamps.reshape(len(stamps), -1).view(np.dtype((np.void, stamps[0].nbytes))).ravel()
    different = np.sort(np.unique(raw, return_index=True)[1])
    return stamps[np.sort(rng.permutation(different)[:count])]
