"""Several processes that train one network, a GPU each: how they start, who they are, and how they agree.

torchrun starts them and ends all of them when one fails; they die with it, as every job dies with its scheduler.
"""

import contextlib
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from dark_halo_scope.core.errors import ConfigError, DarkHaloScopeError

# Longer than any validation that the others wait for; that a rank died is what torchrun notices, not this.
_TIMEOUT = timedelta(hours=12)

# In the store that torchrun keeps: what the first process died of, and how long it may be behind the others.
_ERROR = "dark_halo_scope/error"
_FIRST_SPEAKS = timedelta(seconds=20)


@dataclass(frozen=True)
class Ranks:
    """One of `size` processes that hold the same network and see different images of each batch."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and logs."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of the tensor over all processes, on the CPU."""
        values = values.cpu()
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agreed(self, value: bool) -> bool:
        """What the first process says; the others wait for it."""
        if self.size == 1:
            return value
        answer = torch.tensor(int(value))
        dist.broadcast(answer, 0)
        return bool(answer)

    def end_after_first(self) -> NoReturn:
        """End, as another process than the first, once that has said what is wrong and ended.

        torchrun stops all when one ends: who would go at once takes the first away from what it writes.
        """
        # Nobody answers: the first closes its connections when it ends, or torchrun stops this process before.
        with contextlib.suppress(RuntimeError):
            dist.broadcast(torch.zeros(1), 0)
        raise SystemExit(1)


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


def rank_device(name: str, processes: int) -> str:
    """What `--device name` means to processes of which there are several: `cpu` or `cuda`.

    Raises:
        ConfigError: fewer GPUs than processes, and the CPU was not asked for.
    """
    if name == "cpu":
        return name
    if (found := torch.cuda.device_count()) < processes:
        raise ConfigError(
            f"--gpus {processes} was asked for and this machine has {found}; ask for fewer, or for --device cpu."
        )
    return "cuda"


def launch(module: str, arguments: Sequence[str], processes: int) -> None:
    """Run `python -m module arguments` in several processes that find each other, and wait for all of them.

    Raises:
        DarkHaloScopeError: one of them failed, and the others were stopped.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        # A host's own name need not resolve, and nobody else joins.
        local_addr="localhost",
        max_restarts=0,
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise DarkHaloScopeError(
            f"Process {rank} of {processes} ended with status {failure.exitcode}, and the others were stopped; its own "
            "error is above."
        ) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None


@contextlib.contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """This process's place among those that torchrun started; alone where it started none.

    Tensors of a GPU travel by NCCL, those of the CPU by gloo.
    """
    if not launched():
        yield Ranks()
        return
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))
    if device_type == "cuda":
        torch.cuda.set_device(ranks.local)
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    if not ranks.first:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        yield ranks
    except DarkHaloScopeError as error:
        if _said_by_first(ranks, error):
            ranks.end_after_first()
        raise
    # Not where an error passes: the others wait in a collective that will never come, and torchrun ends them.
    dist.destroy_process_group()


def _said_by_first(ranks: Ranks, error: DarkHaloScopeError) -> bool:
    """Whether the first process says the same of what ails all of them; false on the first itself."""
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if ranks.first:
        store.set(_ERROR, str(error))
        return False
    try:
        store.wait([_ERROR], _FIRST_SPEAKS)
    except dist.DistStoreError:
        return False
    return bool(store.get(_ERROR).decode() == str(error))
