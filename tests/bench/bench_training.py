"""Images per second of training, against the same network on tensors that lie on the device, and against the hardware.

    python tests/bench/bench_training.py [--device cuda] [--seconds 20] [--batch 256] [--pairs 32768]

What is timed is the training loop's own epoch: plan, gather, augmentation, preprocessing, network, loss, clipping and
fused AdamW, on packed float16 pairs of 64 x 64 pixels that lie on disk. Beside it the same compiled network, optimiser
and loss take steps on one batch of six channels that is already on the device; both alternate in one run, so that what
else happens on the machine meets both, and the fraction is the median over the rounds. On a GPU there are two rows: all
pairs held there, and all gathered from their memory maps.

The limit is a large matrix product's rate over the network's operations per image: forward as torch.utils.flop_counter
counts it, times three for forward and backward (its own count of backward takes depthwise convolutions for dense ones).
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

from dark_halo_scope.images.augment import apply_augmentation, draw_augmentation
from dark_halo_scope.images.packed import PackedSplit
from dark_halo_scope.images.samplers import epoch_plan
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.device import autocast, resolve_device, resolve_precision
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.training import data as training_data
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import prefetch
from dark_halo_scope.training.loop import Trainer
from dark_halo_scope.training.losses import image_loss
from dark_halo_scope.training.stepping import algorithms

SIZE = 64
CHANNELS = 6
BLOCK = 1024  # different pairs; more are copies of them, which costs as much to read
MEMORY_MAPS, RESIDENT = "memory maps", "on the GPU"


@dataclass(frozen=True)
class Rates:
    """Medians of images per second, and of the rounds' fractions real / synthetic."""

    real: float
    synthetic: float
    prepared: float
    fraction: float


def write_split(folder: Path, pairs: int) -> PackedSplit:
    """Pairs of noise on a host as memory maps; what they show does not change what they cost."""
    rng = np.random.default_rng(1)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    host_HW = np.exp(-1.5 * np.hypot(axis[:, None], axis[None]) ** 0.6)
    folder.mkdir()
    arrays = {}
    for kind in ("positive", "control", "hard_negative"):
        block = (host_HW + rng.normal(0, 0.01, (min(BLOCK, pairs), 3, SIZE, SIZE))).astype(np.float16)
        path = folder / f"{kind}.npy"
        array = np.lib.format.open_memmap(path, "w+", np.float16, (pairs, 3, SIZE, SIZE))
        for start in range(0, pairs, BLOCK):
            array[start : start + BLOCK] = block[: pairs - start]
        array.flush()
        arrays[kind] = np.load(path, mmap_mode="r")
    rows = pa.table(
        {
            "task_id": [f"pair-{index:06d}" for index in range(pairs)],
            "psfsize_r": rng.uniform(1.0, 1.6, pairs),
            "psfdepth_r": rng.uniform(23.6, 24.6, pairs),
        }
    )
    return PackedSplit(**arrays, rows=rows, negative=np.empty((0, 3, SIZE, SIZE), np.float16), negative_rows=rows[:0])


def train_settings(backbone: str, batch: int, compiled: str) -> TrainSettings:
    """The Gen5-Prime plan's training, from scratch, with bfloat16 where the hardware has it."""
    return TrainSettings.model_validate(
        {
            "epochs": 100_000,  # more than any time allows: the schedule must not end
            "compile": compiled,
            "model": {"backbone": backbone, "pretrained": False},
            "sampler": {"batch_pairs": batch, "per_pair": "one"},
        }
    )


def synchronised(device: torch.device) -> float:
    """Now, when the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    start = synchronised(device)
    work()
    return synchronised(device) - start


def measure(
    settings: TrainSettings, train: PackedSplit, val: PackedSplit, device: torch.device, seconds: float
) -> Rates:
    """Alternate real epochs, steps on one batch of tensors, and epochs without a network, until time is up."""
    trainer = Trainer(settings, train, val, device, None)
    images, batch = len(train), settings.sampler.batch_pairs
    generator = torch.Generator().manual_seed(2)
    x_BCHW = torch.randn(batch, CHANNELS, SIZE, SIZE, generator=generator).to(device)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    meta_BM = torch.tensor([[1.3, 24.0]], device=device).repeat(batch, 1)
    target_B = (torch.arange(batch, device=device) % 2).float()

    def real() -> None:
        trainer._train_epoch()
        trainer.state.epoch, trainer.state.step_in_epoch = trainer.state.epoch + 1, 0

    def synthetic() -> None:
        stepper = trainer.stepper
        forward, parameters = stepper._prepared(), list(stepper.model.parameters())
        stepper.model.train()
        for _ in range(images // batch):
            stepper.optimizer.zero_grad(set_to_none=True)
            with autocast(device, stepper.dtype):
                logit_B = forward(x_BCHW, meta_BM)
            image_loss(logit_B, target_B, settings.loss).mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.optimizer.clip_norm or float("inf"))
            stepper.optimizer.step()

    def prepared() -> None:
        data, preprocess = trainer.train_data, trainer.preprocess
        plans = epoch_plan(settings.sampler, data.pairs_N, data.pool_M, data.variants, settings.seed, 0)
        for item in prefetch(data, plans, workers=0 if data.resident else 1):
            draws = draw_augmentation(item.images.shape, settings.augmentation, generator, device)
            augmented, controls = apply_augmentation(
                item.images, draws, settings.augmentation, preprocess, item.controls
            )
            preprocess(augmented, controls, check=False)

    works = (real, synthetic, prepared)
    times: list[list[float]] = [[], [], []]
    with algorithms(settings, device):
        for work in works:
            work()  # compilation, the choice of algorithms, and the disk's cache
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times[0]) < 3:
            for work, measured in zip(works, times, strict=True):
                measured.append(seconds_of(work, device))
    fraction = statistics.median(on_tensors / real for real, on_tensors in zip(*times[:2], strict=True))
    return Rates(*(images / statistics.median(measured) for measured in times), fraction)


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations per second of a large matrix product, the best of those that fit into `seconds`."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    end, best = time.perf_counter() + seconds, np.inf
    while time.perf_counter() < end:
        best = min(best, seconds_of(lambda: left @ right, device))
    return 2 * side**3 / best


def operations_per_image(settings: ModelSettings) -> float:
    """Floating-point operations of a training step, per image."""
    model = LensFinder6CH(settings, CHANNELS, load_weights=False).train()
    meta_BM = torch.tensor([[1.3, 24.0]]).repeat(2, 1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(2, CHANNELS, SIZE, SIZE), meta_BM)
    return 3 * counter.get_total_flops() / 2


def table_row(name: str, where: str, rates: Rates, limit: float) -> str:
    return (
        f"| {name} | {where} | {rates.real:,.0f} | {rates.synthetic:,.0f} | {rates.fraction:.1%} | "
        f"{rates.prepared:,.0f} | {limit:,.0f} | {rates.real / limit:.1%} |"
    )


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=20.0, help="time each row for at least this long")
    parser.add_argument("--batch", type=int, default=None, help="images a step (default: 256, on CPU 32)")
    parser.add_argument("--pairs", type=int, default=None, help="pairs an epoch (default: 32768, on CPU 512)")
    parser.add_argument("--backbones", nargs="+", default=["convnext_tiny", "resnet18"])
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", dest="compiled")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    dtype = resolve_precision("auto", device)
    batch = arguments.batch or (256 if device.type == "cuda" else 32)
    # Whole batches: another size would be compiled anew.
    pairs = (arguments.pairs or (32768 if device.type == "cuda" else 512)) // batch * batch
    rate = product_rate(device, dtype)
    print(
        f"{machine(device)}; torch {torch.__version__}; {str(dtype).removeprefix('torch.')}, batches of {batch}, "
        f"{pairs} pairs an epoch, compile {arguments.compiled}; matrix product {rate / 1e12:.2f} TFLOP/s\n"
    )
    print("| network | pairs lie | images/s | on tensors | fraction | without network | product limit | fraction |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    shares = {MEMORY_MAPS: 0.0}
    if device.type == "cuda":
        shares = {RESIDENT: training_data.RESIDENT_SHARE, MEMORY_MAPS: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        train = write_split(Path(folder) / "train", pairs)
        val = replace(train, **{k: getattr(train, k)[:batch] for k in ("positive", "control", "hard_negative", "rows")})
        for backbone in arguments.backbones:
            settings = train_settings(backbone, batch, arguments.compiled)
            limit = rate / operations_per_image(settings.model)
            for where, share in shares.items():
                training_data.RESIDENT_SHARE = share
                rates = measure(settings, train, val, device, arguments.seconds)
                print(table_row(backbone, where, rates, limit), flush=True)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
        if device.type == "cuda":
            print(f"\nGPU memory at its highest: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
