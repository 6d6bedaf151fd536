"""What steps saw, fetched from the device many at a time, and the end of a run that saw nonsense."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.images.samplers import BatchPlan
from dark_halo_scope.training.distributed import Ranks
from dark_halo_scope.training.stepping import Outcome


class TrainingDivergedError(DarkHaloScopeError):
    """The loss or its gradient is NaN or infinite."""


@dataclass(frozen=True)
class PendingStep:
    """A step whose numbers are still on the device.

    number: counted from 0 over the whole run. plans: what it showed, over all processes. rate: its learning rate.
    """

    number: int
    plans: tuple[BatchPlan, ...]
    rate: float
    outcome: Outcome[Any]


@dataclass(frozen=True)
class SeenStep:
    """A step's numbers over all processes; `wrong` is what of it is not finite, None where all is."""

    number: int
    plans: tuple[BatchPlan, ...]
    rate: float
    loss: float
    norm: float
    wrong: str | None


def fetch(pending: Sequence[PendingStep], ranks: Ranks) -> list[SeenStep]:
    """The numbers of some steps; every process must ask for the same ones."""
    shares = torch.stack(
        [torch.stack([step.outcome.loss.double(), (~step.outcome.finite).double()]) for step in pending]
    )
    norms = torch.stack([step.outcome.norm for step in pending]).tolist()
    totals = ranks.total(shares).tolist()
    seen = []
    for step, (loss, not_finite), norm in zip(pending, totals, norms, strict=True):
        numbers = torch.tensor([loss, norm]).isfinite().tolist()
        wrong = None
        if not_finite:
            wrong = "pixels"
        elif not all(numbers):
            wrong = "gradient" if numbers[0] else "loss"
        seen.append(SeenStep(step.number, step.plans, step.rate, loss, norm, wrong))
    return seen
