"""Images per second of the input pipeline against the earlier way, and of training against a network that never waits.

    python tests/bench/bench_input_pipeline.py [--pairs 2000] [--rounds 5] [--steps 12]

The earlier way: stamps as compressed NPZ in Parquet, decoded one by one in a `torch.utils.data.DataLoader`, turned,
normalised and filtered by NumPy and SciPy, with no worker and with one. Ours: float16 arrays, memory-mapped, gathered
in a thread batch by batch, turned and normalised as one batch. Both make the same channels of the same stamps, which
is checked before the clock starts: median and scaled MAD of the pixels beyond 16 pixels, clipped at 10 noise units,
and these less their Gaussian of 3 pixels. Everything lies in the page cache.

One thread computes on each side. "Per core" is images by the seconds of CPU time that the process took, its threads
and workers included; it hardly depends on what else the machine does. The measured ways take turns in each round, and
the median over rounds is printed. Where a GPU trains, the earlier way's cores make the channels and ours gather stamps,
because the GPU turns and normalises: the last column compares what a core feeds to it.

The second table compares steps of training with the same steps on images that lie in memory, one and the same batch
again and again, and with the network alone on ready channels, without augmentation and preprocessing.
"""

import os

# Before NumPy starts its threads.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import gc
import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.ndimage import gaussian_filter

from dark_halo_scope.images.augment import augment
from dark_halo_scope.images.codec import encode_stamp
from dark_halo_scope.images.preprocess import Preprocess6CH, annulus_mask
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.images.samplers import BatchPlan, epoch_plan
from dark_halo_scope.models.device import autocast, resolve_precision
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch, TrainingData, prefetch
from dark_halo_scope.training.distributed import Ranks
from dark_halo_scope.training.losses import image_loss
from dark_halo_scope.training.stepping import Stepper, make_optimizer, part_of

SIZE, BATCH = 64, 64
OURS = 10  # times as many images as the earlier way has time for
BLOBS = ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz")
CPU = torch.device("cpu")
STAMPS, CHANNELS = "float32 stamps", "turned, normalised, 6 channels"
NO_WORKER, ONE_WORKER = "NPZ in Parquet, DataLoader, no worker", "NPZ in Parquet, DataLoader, one worker"
RING = annulus_mask(SIZE, 16.0)


@dataclass(frozen=True)
class Split:
    """Packed pairs as training sees them."""

    positive: np.ndarray
    control: np.ndarray
    hard_negative: np.ndarray
    rows: pa.Table
    negative: np.ndarray
    negative_rows: pa.Table
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    pairs: bool = True


@dataclass(frozen=True)
class Rate:
    """Images per second of wall clock, and per second of CPU time."""

    wall: float
    core: float


def write_pairs(folder: Path, pairs: int) -> tuple[Path, Split]:
    """The same pairs as stamps in Parquet and as packed arrays: noisy galaxies, in float16's values."""
    rng = np.random.default_rng(1)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    host = np.exp(-1.5 * np.hypot(axis[:, None], axis[None]) ** 0.6)
    arrays = []
    for _ in BLOBS:
        light = rng.uniform(0.5, 2, (pairs, 1, 1, 1)) * host
        arrays.append((light + rng.normal(0, 0.01, (pairs, 3, SIZE, SIZE))).astype(np.float16))
    names = [f"task-{index:06d}" for index in range(pairs)]
    columns = dict(zip(BLOBS, arrays, strict=True))
    blobs = {name: [encode_stamp(image) for image in array.astype(np.float32)] for name, array in columns.items()}
    path = folder / "stamps.parquet"
    pq.write_table(pa.table({"task_id": names, **blobs}), path, row_group_size=500)
    packed = []
    for name, array in columns.items():
        np.save(folder / f"{name}.npy", array)
        packed.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    rows = pa.table(
        {"task_id": names, "psfsize_r": rng.uniform(1, 1.4, pairs), "psfdepth_r": rng.uniform(23.6, 24.6, pairs)}
    )
    positive, control, hard_negative = packed
    return path, Split(positive, control, hard_negative, rows, arrays[0][:0], rows[:0])


def earlier_channels(image: np.ndarray) -> np.ndarray:
    """(6, H, W) of a stamp (3, H, W), one band after the other."""
    bands, residuals = [], []
    for band in image:
        ring = band[RING]
        middle = np.median(ring)
        sigma = 1.4826 * np.median(np.abs(ring - middle)) + 1e-6
        clipped = np.clip((band - middle) / sigma, -10, 10)
        bands.append(clipped)
        residuals.append(clipped - gaussian_filter(clipped, 3.0, mode="reflect", truncate=3.0))
    return np.stack(bands + residuals)


def earlier_image(blob: bytes) -> np.ndarray:
    """(3, H, W) of an NPZ, as the earlier readers took it apart."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
        return np.stack([arrays[f"image_{band}"] for band in "grz"])


class EarlierImages(torch.utils.data.IterableDataset[tuple[torch.Tensor, float]]):
    """One image of each pair, of a kind drawn at random, decoded from Parquet and perhaps turned and normalised."""

    def __init__(self, path: Path, transforms: bool) -> None:
        self._path, self._transforms = path, transforms

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        rng = np.random.default_rng(1)
        for batch in pq.ParquetFile(self._path).iter_batches(500, columns=list(BLOBS)):
            columns = [batch[name] for name in BLOBS]
            for row, kind in enumerate(rng.integers(3, size=batch.num_rows).tolist()):
                image = earlier_image(columns[kind][row].as_py())
                if self._transforms:
                    if rng.random() < 0.5:
                        image = image[:, :, ::-1]
                    image = earlier_channels(np.rot90(image, int(rng.integers(4)), axes=(1, 2)))
                yield torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)), float(kind == 0)


def earlier(path: Path, transforms: bool, workers: int) -> Iterator[int]:
    """Numbers of images in batches of a DataLoader, over all pairs once."""
    dataset = EarlierImages(path, transforms)
    for images, _ in torch.utils.data.DataLoader(dataset, BATCH, num_workers=workers):
        yield len(images)


def plans_of(data: TrainingData, settings: TrainSettings, epochs: int) -> list[BatchPlan]:
    """Batches of some epochs."""
    arguments = (settings.sampler, data.pairs_N, data.pool_M, data.variants, settings.seed)
    return [plan for epoch in range(epochs) for plan in epoch_plan(*arguments, epoch)]


def gathered(data: TrainingData, settings: TrainSettings) -> Iterator[int]:
    """Numbers of images in float32 batches as they are packed."""
    for batch in prefetch(data, plans_of(data, settings, OURS)):
        yield len(batch.images)


def transformed(data: TrainingData, settings: TrainSettings, preprocess: Preprocess6CH) -> Iterator[int]:
    """Numbers of images in batches of turned and normalised channels."""
    generator = torch.Generator().manual_seed(1)
    for batch in prefetch(data, plans_of(data, settings, OURS)):
        x_B3HW, _ = augment(batch.images, settings.augmentation, preprocess, generator)
        yield len(preprocess(x_B3HW, check=False))


def cpu_seconds() -> float:
    """Of this process, its threads, and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(start: Callable[[], Iterator[int]]) -> Rate:
    """Rate of all images, the start of a worker included."""
    gc.collect()
    core, wall = cpu_seconds(), time.perf_counter()
    images = sum(start())
    return Rate(images / (time.perf_counter() - wall), images / (cpu_seconds() - core))


def check_channels(split: Split, preprocess: Preprocess6CH) -> None:
    """Both ways make the same channels."""
    images = np.asarray(split.positive[:8], dtype=np.float32)
    expected = np.stack([earlier_channels(image) for image in images])
    # NumPy's median of an even number is between the two middle values, torch's is the lower one.
    np.testing.assert_allclose(preprocess(torch.from_numpy(images)).numpy(), expected, rtol=1e-2, atol=2e-2)


def pipeline_table(
    path: Path, data: TrainingData, settings: TrainSettings, preprocess: Preprocess6CH, rounds: int
) -> str:
    """Markdown of the first table."""
    ways: dict[tuple[str, str], Callable[[], Iterator[int]]] = {
        (STAMPS, NO_WORKER): lambda: earlier(path, False, 0),
        (STAMPS, ONE_WORKER): lambda: earlier(path, False, 1),
        (STAMPS, "packed, gathered in a thread"): lambda: gathered(data, settings),
        (CHANNELS, NO_WORKER): lambda: earlier(path, True, 0),
        (CHANNELS, ONE_WORKER): lambda: earlier(path, True, 1),
        (CHANNELS, "packed, by batch"): lambda: transformed(data, settings, preprocess),
    }
    rates: dict[tuple[str, str], list[Rate]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, start in ways.items():
            rates[way].append(measure(start))
    lines = [
        "| made | how | images/s | images/s per core | against no worker | against no worker that makes channels |",
        "|---|---|---|---|---|---|",
    ]
    last = [rate.core for rate in rates[CHANNELS, NO_WORKER]]
    for way, measured in rates.items():
        first = [rate.core for rate in rates[way[0], NO_WORKER]]
        wall, core = median(rate.wall for rate in measured), median(rate.core for rate in measured)
        ratio = median(rate.core / other for rate, other in zip(measured, first, strict=True))
        feeds = median(rate.core / other for rate, other in zip(measured, last, strict=True))
        lines.append(f"| {way[0]} | {way[1]} | {wall:,.0f} | {core:,.0f} | {ratio:.1f} | {feeds:.1f} |")
    return "\n".join(lines)


def steps_on(stepper: Stepper, plans: list[BatchPlan], batches: Iterator[Batch]) -> Iterator[int]:
    """Numbers of images of real steps of training."""
    for number, (plan, batch) in enumerate(zip(plans, batches, strict=False)):
        stepper.step([part_of(plan, stepper.ranks)], [batch], [number], 1e-4, number)
        yield plan.total


def steps_of_network(settings: TrainSettings, batch: Batch, channels: torch.Tensor, steps: int) -> Iterator[int]:
    """Numbers of images of steps of the network and its optimiser alone."""
    model = LensFinder6CH(settings.model, channels.shape[1], load_weights=False).to(memory_format=torch.channels_last)
    optimizer, dtype = make_optimizer(model.train(), settings), resolve_precision(settings.precision, CPU)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, dtype):
            logits = model(channels, batch.meta)
        (image_loss(logits, batch.targets, settings.loss) * batch.weights).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield len(channels)


def step_rows(data: TrainingData, settings: TrainSettings, preprocess: Preprocess6CH, steps: int, rounds: int) -> str:
    """Markdown rows of one network in the second table."""
    torch.manual_seed(1)
    model = LensFinder6CH(settings.model, preprocess.channels, load_weights=False).to(memory_format=torch.channels_last)
    stepper = Stepper(settings, model.train(), preprocess, CPU, Ranks())
    plans = plans_of(data, settings, 1)
    # Of one size, so that every step does the same work.
    plans = [plan for plan in plans if plan.total == plans[0].total][:steps]
    batch = data.batch(plans[0])
    channels = preprocess(batch.images)
    ways: dict[str, Callable[[], Iterator[int]]] = {
        "training": lambda: steps_on(stepper, plans, prefetch(data, plans)),
        "images in memory": lambda: steps_on(stepper, plans, iter([batch] * len(plans))),
        "network alone": lambda: steps_of_network(settings, batch, channels, len(plans)),
    }
    rates: dict[str, list[Rate]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, start in ways.items():
            rates[way].append(measure(start))
    cells = [f"{median(rate.core for rate in rates[way]):,.0f}" for way in ways]
    shares = [
        median(real.core / other.core for real, other in zip(rates["training"], rates[way], strict=True))
        for way in ("images in memory", "network alone")
    ]
    return f"| {settings.model.backbone} | {' | '.join(cells)} | {shares[0]:.1%} | {shares[1]:.1%} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="steps of training in a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path, split = write_pairs(Path(folder), arguments.pairs)
        values = {"sampler": {"per_pair": "one", "batch_pairs": BATCH}, "compile": "off"}
        networks = [
            {"backbone": "small_cnn", "width": 24, "hidden": 128, "crop_pix": 48, "pretrained": False},
            {"backbone": "resnet18", "pretrained": False},
        ]
        runs = [TrainSettings.model_validate({**values, "model": network}) for network in networks]
        preprocess = Preprocess6CH(PreprocessSettings(), SIZE)
        check_channels(split, preprocess)
        data = TrainingData(split, runs[0], CPU)
        print(pipeline_table(path, data, runs[0], preprocess, arguments.rounds))
        print(
            "\n| network | training, images/s per core | images in memory | network alone | share | of network alone |"
        )
        print("|---|---|---|---|---|---|")
        for settings in runs:
            print(step_rows(data, settings, preprocess, arguments.steps, arguments.rounds))


if __name__ == "__main__":
    main()
