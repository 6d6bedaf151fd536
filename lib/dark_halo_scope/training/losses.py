"""Losses of raw logits, per image, so that class weights can follow."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from dark_halo_scope.training.config import LossSettings


def image_loss(logit_B: torch.Tensor, label_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """Loss (B,) of each image; labels are 0 or 1.

    `focal` is -alpha_t (1 - p_t)^gamma log p_t, alpha for lenses and 1 - alpha for the rest (Lin et al. 2017, eq. 5).
    """
    cross_entropy_B = binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    if settings.kind == "bce":
        return cross_entropy_B
    missed_B = 1 - torch.exp(-cross_entropy_B)
    alpha_B = torch.where(label_B > 0.5, settings.focal_alpha, 1 - settings.focal_alpha)
    return alpha_B * missed_B**settings.focal_gamma * cross_entropy_B


def pair_ranking_loss(logit_KP: torch.Tensor) -> torch.Tensor:
    """Mean softplus(negative - positive); the first row holds the positives of P pairs, the others their negatives."""
    return softplus(logit_KP[1:] - logit_KP[0]).mean()
