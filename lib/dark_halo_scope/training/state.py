"""Where a run stands, and how it goes into a checkpoint and comes back, bit by bit and for any number of processes."""

from dataclasses import dataclass, field
from typing import Any

import torch

from dark_halo_scope.training.checkpoints import Checkpoint
from dark_halo_scope.training.red_flags import Record
from dark_halo_scope.training.stepping import Stepper, Tensors


@dataclass
class Progression:
    """Where a run stands, JSON-ready; only the first of several processes knows history, decisions and best epoch."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    largest_norm: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[Record] = field(default_factory=list)
    best_epoch: int | None = None
    finished: bool = False


def pack_state(state: Progression, stepper: Stepper, best: Tensors) -> Checkpoint:
    """Weights, their average, those of the best epoch, the optimiser's moments, and where the run stands."""
    tensors = {f"model.{name}": tensor for name, tensor in stepper.model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in (stepper.average or {}).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, slots in stepper.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": tensor for slot, tensor in slots.items()}
    return Checkpoint(tensors, vars(state))


def restore_state(checkpoint: Checkpoint, stepper: Stepper) -> tuple[Progression, Tensors]:
    """Put weights and optimiser back; where the run stands, and the weights of its best epoch."""
    parts: dict[str, Tensors] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor.to(stepper.device)
    stepper.model.load_state_dict(parts["model"])
    if stepper.average is not None:
        stepper.average = parts["average"]
    parameters = [parameter for group in stepper.optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, Tensors] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, slot = name.partition(".")
        if slot != "step":
            # The fused kernel walks weights and moments in memory order: they must be laid out alike.
            tensor = torch.empty_like(parameters[int(index)], requires_grad=False).copy_(tensor)
        slots.setdefault(int(index), {})[slot] = tensor
    groups = stepper.optimizer.state_dict()["param_groups"]
    stepper.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return Progression(**checkpoint.values), parts["best"]
