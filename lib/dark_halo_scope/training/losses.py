"""Losses of raw logits, per image, so that class weights can follow."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from dark_halo_scope.training.config import LossSettings


def image_loss(logit_B: torch.Tensor, target_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """Loss (B,) of each image, for targets between 0 and 1.

    `bce` is -w y log p - (1 - y) log(1 - p) with w = pos_weight. `focal` is -alpha_t (1 - p_t)^gamma log p_t, alpha for
    lenses and 1 - alpha for the rest (Lin et al. 2017, eq. 5); a target between 0 and 1 is the share of such images
    that are lenses, and the loss is what is expected of them.
    """
    if settings.kind == "bce":
        # Made on the device: a number from the host would make the GPU wait.
        weight = None if settings.pos_weight is None else logit_B.new_full((), settings.pos_weight)
        return binary_cross_entropy_with_logits(logit_B, target_B, reduction="none", pos_weight=weight)
    lens_B = _focal(logit_B, torch.ones_like(logit_B), settings.focal_alpha, settings.focal_gamma)
    rest_B = _focal(logit_B, torch.zeros_like(logit_B), 1 - settings.focal_alpha, settings.focal_gamma)
    return target_B * lens_B + (1 - target_B) * rest_B


def _focal(logit_B: torch.Tensor, label_B: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    cross_entropy_B = binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    # Powers below 1 have an infinite slope at 0, which an image that is judged perfectly would turn into NaN.
    missed_B = (1 - torch.exp(-cross_entropy_B)).clamp_min(torch.finfo(logit_B.dtype).tiny)
    return alpha * missed_B**gamma * cross_entropy_B


def pair_ranking_loss(logit_KP: torch.Tensor) -> torch.Tensor:
    """Mean softplus(negative - positive); the first row holds the positives of P pairs, the others their negatives."""
    return softplus(logit_KP[1:] - logit_KP[0]).mean()
