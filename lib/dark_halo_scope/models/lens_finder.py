"""LensFinder6CH: an image network and the observing conditions, fused to one logit."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.images.symmetries import dihedral
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.networks import create_backbone

META_CLIP = 5.0  # standard deviations: conditions far outside training do not extrapolate


class LensFinder6CH(nn.Module):
    """A backbone, an MLP head, and standardised metadata.

    By default metadata enter after the image (`fusion: late`), so that they can shift a decision but not what is seen.
    As planes (`early`) they can steer the first filters; as a `branch` they add a logit of their own, and what the
    image says stays apart. Their mean and standard deviation are those of the training split and travel with the
    weights.
    """

    meta_mean: torch.Tensor
    meta_std: torch.Tensor

    def __init__(self, settings: ModelSettings, in_channels: int = 6, load_weights: bool = True) -> None:
        """Build the network; `load_weights=False` where its own weights follow.

        Raises:
            ConfigError: see `create_backbone`.
        """
        super().__init__()
        self.settings = settings
        self.in_channels = in_channels
        count = len(settings.meta_columns)
        planes = count if settings.fusion == "early" else 0
        self.backbone, features = create_backbone(settings, in_channels + planes, load_weights)
        self.register_buffer("meta_mean", torch.zeros(count))
        self.register_buffer("meta_std", torch.ones(count))
        self.meta = (
            nn.Sequential(
                nn.Linear(count, settings.hidden),
                nn.ReLU(),
                nn.Linear(settings.hidden, settings.hidden),
                nn.ReLU(),
            )
            if count and settings.fusion != "early"
            else None
        )
        self.head = nn.Sequential(
            nn.Linear(features + (settings.hidden if count and settings.fusion == "late" else 0), settings.hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.hidden, 1),
        )
        self.branch = nn.Linear(settings.hidden, 1) if count and settings.fusion == "branch" else None

    def set_meta_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Standardise metadata with these; a column that never varies is left at its distance from the mean.

        Raises:
            ConfigError: not one finite number per column.
        """
        values = np.array([mean, std], dtype=np.float64)
        if values.shape != (2, len(self.settings.meta_columns)) or not np.isfinite(values).all():
            raise ConfigError(
                f"Metadata statistics must be one finite mean and deviation for each of {self.settings.meta_columns}."
            )
        values[1][values[1] <= 1e-6 * np.maximum(1.0, np.abs(values[0]))] = 1.0
        self.meta_mean.copy_(torch.from_numpy(values[0]))
        self.meta_std.copy_(torch.from_numpy(values[1]))

    @property
    def parameters_count(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def crop(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The central pixels that the network sees."""
        crop = self.settings.crop_pix
        if crop is None or crop >= x_BCHW.shape[-1]:
            return x_BCHW
        edge = (x_BCHW.shape[-1] - crop) // 2
        return x_BCHW[..., edge : edge + crop, edge : edge + crop]

    def features(self, x_BCHW: torch.Tensor, meta_BM: torch.Tensor) -> torch.Tensor:
        """Penultimate features (B, F): the image's, then, fused late, the metadata's."""
        x_BCHW = self.crop(x_BCHW)
        if self.settings.fusion == "early":
            planes_BMHW = self._scaled(meta_BM)[..., None, None].expand(-1, -1, *x_BCHW.shape[-2:])
            x_BCHW = torch.cat([x_BCHW, planes_BMHW], dim=1)
        # Channels last is what convolutions are fastest in, on CPUs and GPUs alike.
        image_BF = self.backbone(x_BCHW.contiguous(memory_format=torch.channels_last))
        with torch.autocast(x_BCHW.device.type, enabled=False):
            parts = [image_BF.float()]
            if self.meta is not None and self.settings.fusion == "late":
                parts.append(self.meta(self._scaled(meta_BM)))
            return torch.cat(parts, dim=1)

    def _scaled(self, meta_BM: torch.Tensor) -> torch.Tensor:
        return ((meta_BM.float() - self.meta_mean) / self.meta_std).clamp(-META_CLIP, META_CLIP)

    def forward(self, x_BCHW: torch.Tensor, meta_BM: torch.Tensor) -> torch.Tensor:
        """Raw logits (B,) float32 of preprocessed images (B, C, H, W) and metadata (B, M) in the columns' own units.

        Outside training the logits of `evaluate_symmetries` orientations are averaged.

        Raises:
            BadInputError: metadata of another shape.
        """
        if meta_BM.shape != (len(x_BCHW), len(self.settings.meta_columns)):
            raise BadInputError(
                f"Metadata of shape {tuple(meta_BM.shape)} do not fit {len(x_BCHW)} images and the columns "
                f"{', '.join(self.settings.meta_columns)}."
            )
        if self.training:
            return self._logit(x_BCHW, meta_BM)
        elements = {1: range(1), 4: (0, 3, 5, 6), 8: range(8)}[self.settings.evaluate_symmetries]
        return torch.stack([self._logit(dihedral(x_BCHW, element), meta_BM) for element in elements]).mean(0)

    def _logit(self, x_BCHW: torch.Tensor, meta_BM: torch.Tensor) -> torch.Tensor:
        features_BF = self.features(x_BCHW, meta_BM)
        # In full precision: logits rounded to bfloat16 tie.
        with torch.autocast(x_BCHW.device.type, enabled=False):
            logit_B1 = self.head(features_BF)
            if self.meta is not None and self.branch is not None:
                logit_B1 = logit_B1 + self.branch(self.meta(self._scaled(meta_BM)))
            return logit_B1.squeeze(1)


def meta_statistics(meta_NM: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each metadata column.

    Raises:
        BadInputError: a value is not finite.
    """
    if not np.isfinite(meta_NM).all():
        raise BadInputError("Metadata hold values that are not finite; exclude those rows before training.")
    return meta_NM.mean(0).tolist(), meta_NM.std(0).tolist()
