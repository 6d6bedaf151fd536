"""What changes from step to step, as functions of the step alone: nothing to save, nothing to restore."""

import math
from collections.abc import Callable, Mapping

from dark_halo_scope.training.config import OptimizerSettings


def learning_rate(step: int, steps_per_epoch: int, epochs: int, settings: OptimizerSettings) -> float:
    """Learning rate of a step of the optimiser: linear warm-up from zero, then the schedule.

    `cosine` and `warm_restarts` begin when the warm-up ends; `step` counts epochs from the start of training.

    Args:
        step: of the optimiser, which takes one for several batches where gradients accumulate; counted from 0 as if
            all epochs were as long as the one it lies in, so that schedules keep to epochs where those differ.
        steps_per_epoch: steps, not batches, of the epoch that the step lies in.
        epochs: of the whole run.
        settings: the optimiser's.
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / math.ceil(warmup)
    return _SCHEDULES[settings.schedule](step, warmup, steps_per_epoch, epochs, settings)


def _cosine(step: int, warmup: float, steps_per_epoch: int, epochs: int, settings: OptimizerSettings) -> float:
    """Half a cosine to the final fraction at the run's last step."""
    last = epochs * steps_per_epoch - 1
    progress = min(1.0, (step - warmup) / max(1.0, last - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr * (settings.final_lr_fraction + (1 - settings.final_lr_fraction) * cosine)


def _warm_restarts(step: int, warmup: float, steps_per_epoch: int, epochs: int, settings: OptimizerSettings) -> float:
    """Half a cosine from lr to eta_min, again and again in longer cycles (Loshchilov & Hutter 2017, eq. 5)."""
    position, length = step - warmup, settings.t_0 * steps_per_epoch
    while position >= length:
        position, length = position - length, length * settings.t_mult
    return settings.eta_min + 0.5 * (settings.lr - settings.eta_min) * (1 + math.cos(math.pi * position / length))


def _step(step: int, warmup: float, steps_per_epoch: int, epochs: int, settings: OptimizerSettings) -> float:
    """lr times gamma to the number of times that `step_epochs` have passed."""
    return settings.lr * settings.gamma ** (step // (settings.step_epochs * steps_per_epoch))


def _constant(step: int, warmup: float, steps_per_epoch: int, epochs: int, settings: OptimizerSettings) -> float:
    return settings.lr


#: Schedules by name. A new one is a function above, a line here and a name in `OptimizerSettings.schedule`.
_SCHEDULES: Mapping[str, Callable[[int, float, int, int, OptimizerSettings], float]] = {
    "cosine": _cosine,
    "warm_restarts": _warm_restarts,
    "step": _step,
    "constant": _constant,
}


def ema_decay(step: int, decay: float) -> float:
    """Decay of the weight average at a step: shorter at the start, so that the first weights are forgotten."""
    return min(decay, (1 + step) / (10 + step))
