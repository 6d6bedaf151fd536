"""Steps of the optimiser: the same weights follow on one process and on several.

What a step saw stays on the device until somebody asks: a host that waits for each step leaves a GPU idle.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.images.augment import apply_augmentation, draw_augmentation, on_device
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.samplers import BatchPlan
from dark_halo_scope.models.device import autocast, resolve_precision
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch
from dark_halo_scope.training.distributed import Ranks
from dark_halo_scope.training.losses import image_loss, pair_ranking_loss
from dark_halo_scope.training.schedules import ema_decay

Tensors = dict[str, torch.Tensor]
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Part:
    """What one process sees of a batch: its plan, and where in the whole batch its images are."""

    whole: BatchPlan
    mine: BatchPlan
    places: NDArray[np.int64]


def part_of(plan: BatchPlan, ranks: Ranks) -> Part:
    """This process's part of a batch.

    Where a batch has fewer images than there are processes, one of them is shown again with weight 0: every process
    must take part in every step. Only the statistics of batch normalisation, which know no weights, count it twice.
    """
    places = plan.places(ranks.rank, ranks.size)
    if len(places):
        return Part(plan, plan.shard(ranks.rank, ranks.size), places)
    first = slice(0, 1)
    spare = replace(
        plan,
        kind_B=plan.kind_B[first],
        row_B=plan.row_B[first],
        variant_B=plan.variant_B[first],
        weight_B=np.zeros(1, np.float32),
        pairs=0,
    )
    return Part(plan, spare, np.zeros(1, np.int64))


@dataclass(frozen=True)
class Outcome(Generic[Seen]):
    """What a step saw, on the device.

    loss: this process's share of the step's loss. norm: norm of the gradient before clipping, that of all processes.
    finite: whether all of its pixels were. seen: what was made of the gradients, None where nothing was asked for.
    """

    loss: torch.Tensor
    norm: torch.Tensor
    finite: torch.Tensor
    seen: Seen | None


class Stepper:
    """A network, its optimiser and the average of its weights."""

    def __init__(
        self,
        settings: TrainSettings,
        model: LensFinder6CH,
        preprocess: Preprocess6CH,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        """Prepare a network that is on its device."""
        self.settings = settings
        self.preprocess = preprocess
        self.device = device
        self.ranks = ranks
        self.dtype = resolve_precision(settings.precision, device)
        if ranks.size > 1 and device.type == "cuda":
            # It takes longer to import than torch, and one process does not need it.
            from timm.layers import convert_sync_batchnorm

            # Torch's own would lose the activations that some of timm's norms hold.
            model = convert_sync_batchnorm(model)
        self.model = model
        self.optimizer = make_optimizer(model, settings)
        self.average: Tensors | None = None
        if settings.optimizer.ema_decay is not None:
            self.average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._parallel: torch.nn.parallel.DistributedDataParallel | None = None
        self._forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def _prepared(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The forward pass, which is wrapped at the first step: weights may be restored until then."""
        if self._forward is None:
            forward: Any = self.model
            if self.ranks.size > 1:
                ids = [self.ranks.local] if self.device.type == "cuda" else None
                forward = self._parallel = torch.nn.parallel.DistributedDataParallel(self.model, device_ids=ids)
            if compiles(self.settings, self.device):
                # Batches have few sizes: a kernel for each is faster than one for all.
                forward = torch.compile(forward, dynamic=False)
            self._forward = forward
        return self._forward

    @property
    def judged_weights(self) -> Tensors:
        """What is validated and kept: the averaged weights where there is an average, else the network's own."""
        return self.model.state_dict() if self.average is None else self.average

    def step(
        self,
        parts: Sequence[Part],
        batches: Iterable[Batch],
        seeds: Sequence[int],
        rate: float,
        number: int,
        look: Callable[[torch.nn.Module], Seen] | None = None,
    ) -> Outcome[Seen]:
        """Change the weights once.

        Args:
            parts: what this process sees of each batch of the step.
            batches: the same, as tensors on the device.
            seeds: of each batch's augmentation and dropout.
            rate: learning rate.
            number: of the step, counted from 0 over the whole run.
            look: what is to be made of the gradients before they are clipped.
        """
        images = sum(part.whole.total for part in parts)
        pairs = sum(part.whole.pairs for part in parts)
        self.optimizer.zero_grad(set_to_none=True)
        losses, finite = [], []
        for index, (part, batch, seed) in enumerate(zip(parts, batches, seeds, strict=True)):
            with self._unsynchronised(index + 1 < len(parts)):
                # A sum is finite where its terms are, and takes a tenth of the time of looking at each.
                finite.append(torch.isfinite(batch.images.sum()))
                logit_B = self._logits(part, batch, seed)
                # Over the images of the step, wherever they are: then any number of processes has the same gradient.
                share = (image_loss(logit_B, batch.targets, self.settings.loss) * batch.weights).sum() / images
                losses.append(share.detach())
                if self.settings.loss.pair_ranking and batch.pairs:
                    paired = part.mine.kinds_of_pairs * batch.pairs
                    ranking = pair_ranking_loss(logit_B[:paired].view(-1, batch.pairs))
                    share = share + self.settings.loss.pair_ranking * (batch.pairs / pairs) * ranking
                # The gradients of all processes are averaged, and their shares are to be summed.
                (share if self.ranks.size == 1 else share * self.ranks.size).backward()
        seen = None if look is None else look(self.model)
        limit = self.settings.optimizer.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), float("inf") if limit is None else limit)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._update_average(number)
        return Outcome(
            torch.stack(losses).sum() if len(losses) > 1 else losses[0], norm, torch.stack(finite).all(), seen
        )

    def _logits(self, part: Part, batch: Batch, seed: int) -> torch.Tensor:
        # A generator on the CPU draws the same on every device, and the whole batch's draws are the same on every
        # process; dropout draws from torch's own.
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed if self.ranks.first else mixed_seed(seed, self.ranks.rank))
        shape = (part.whole.total, *batch.images.shape[1:])
        augmentation = self.settings.augmentation
        draws = draw_augmentation(shape, augmentation, generator, self.device)
        if self.ranks.size > 1:
            draws = draws.take(on_device(torch.from_numpy(part.places), self.device))
        x_B3HW, controls_B3HW = apply_augmentation(batch.images, draws, augmentation, self.preprocess, batch.controls)
        x_BCHW = self.preprocess(x_B3HW, controls_B3HW, check=False)
        with autocast(self.device, self.dtype):
            return self._prepared()(x_BCHW, batch.meta)

    @contextlib.contextmanager
    def _unsynchronised(self, more_follow: bool) -> Iterator[None]:
        """Gradients travel between processes once in a step, with its last batch."""
        self._prepared()
        with self._parallel.no_sync() if more_follow and self._parallel else contextlib.nullcontext():
            yield

    @torch.no_grad()
    def _update_average(self, number: int) -> None:
        if self.average is None or self.settings.optimizer.ema_decay is None:
            return
        weight = 1 - ema_decay(number, self.settings.optimizer.ema_decay)
        tensors = self.model.state_dict()
        moving = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in moving], [tensors[name] for name in moving], weight)
        for name in tensors.keys() - set(moving):
            self.average[name].copy_(tensors[name])


def check_shareable(model: torch.nn.Module, device: torch.device, ranks: Ranks, name: str) -> None:
    """Refuse to train a network in several processes that would not train to what one does.

    Args:
        model: before it is wrapped.
        device: where to compute.
        ranks: the processes.
        name: of the network.

    Raises:
        ConfigError: batch normalisation on the CPU, where torch cannot take its statistics over processes.
    """
    if ranks.size == 1 or device.type == "cuda":
        return
    if any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ConfigError(
            f"{name} has batch normalisation, whose statistics {ranks.size} processes on the CPU cannot share, so that "
            "they would train another network than one process; take --gpus 1, a GPU for each, or a network with "
            "layer norms."
        )


def make_optimizer(model: LensFinder6CH, settings: TrainSettings) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices and kernels only."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.optimizer.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.optimizer.beta1, settings.optimizer.beta2)
    return torch.optim.AdamW(groups, lr=settings.optimizer.lr, betas=betas, fused=True)


def compiles(settings: TrainSettings, device: torch.device) -> bool:
    """Whether training steps are compiled."""
    return settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda")


@contextlib.contextmanager
def algorithms(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Let torch choose the fastest algorithms, or only those that are deterministic; as before afterwards.

    cuBLAS reads its variable when a process first multiplies on a GPU, and later changes of it mean nothing.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = settings.deterministic
    torch.backends.cudnn.benchmark = device.type == "cuda" and not settings.deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:]


def mixed_seed(*parts: int) -> int:
    """A seed of 63 bits, another one for other parts but for chance; trailing zeros among them count for nothing."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
