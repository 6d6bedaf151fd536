"""What changes from step to step, as functions of the step alone: nothing to save, nothing to restore."""

import math

from dark_halo_scope.training.config import OptimizerSettings


def learning_rate(step: int, steps_per_epoch: int, epochs: int, settings: OptimizerSettings) -> float:
    """Learning rate of a step counted from 0: linear warm-up from zero, then half a cosine to the final fraction."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / math.ceil(warmup)
    last = epochs * steps_per_epoch - 1
    progress = min(1.0, (step - warmup) / max(1.0, last - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr * (settings.final_lr_fraction + (1 - settings.final_lr_fraction) * cosine)


def ema_decay(step: int, decay: float) -> float:
    """Decay of the weight average at a step: shorter at the start, so that the first weights are forgotten."""
    return min(decay, (1 + step) / (10 + step))
