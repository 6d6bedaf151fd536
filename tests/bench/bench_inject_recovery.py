"""Injections per second end to end: hosts cut, arcs rendered, images preprocessed and scored, rows made.

    python tests/bench/bench_inject_recovery.py [--hosts 60] [--replicates 3] [--size 101] [--backbone resnet18]
    python tests/bench/bench_inject_recovery.py --device cuda --workers 16 --hosts 2000 --brick-pixels 3600

One brick of RICE-compressed coadds in tiles of 100 x 100; Sersic and clumpy sources and a lumpy galaxy image; an
untrained network with three channels and a crop of 64 pixels, as the finders of real images have them. `--workers 0`
times every step alone, by the CPU time of this process on one thread; with workers the whole is timed by the clock,
renderers and network side by side, as a user's run has it.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

import argparse
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from brick_scene import planes, write_brick
from dark_halo_scope.evaluation.recovery_parts import score_rendered
from dark_halo_scope.injection import recovery
from dark_halo_scope.injection.galaxy_images import GalaxyImage
from dark_halo_scope.injection.recovery_config import RecoverySettings
from dark_halo_scope.survey.coadds import BrickCoadds
from recovery_scene import bricks_of, host, table


class Bank:
    """One lumpy disc at HST's sampling."""

    def __init__(self) -> None:
        axis = np.arange(81) - 40.0
        image = np.exp(-np.hypot(axis, axis[:, None]) / 6.0)
        self._image = (image / image.sum()).astype(np.float32)

    def galaxy(self, ident: int) -> GalaxyImage:
        return GalaxyImage(self._image, 0.03, 0.3)


def render(hosts: pa.Table, paths: dict[str, Path], settings: RecoverySettings, size: int) -> recovery.Rendered:
    """One unit; also run by the processes."""
    name = hosts["brickname"][0].as_py()
    return recovery.render(hosts, lambda brick: BrickCoadds(paths, name), Bank(), (1,), settings, size)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=60)
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--size", type=int, default=101)
    parser.add_argument("--brick-pixels", type=int, default=1200)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()

    import torch

    from dark_halo_scope.images.preprocess import Preprocess6CH
    from dark_halo_scope.images.preprocess_config import PreprocessSettings
    from dark_halo_scope.models.config import ModelSettings
    from dark_halo_scope.models.lens_finder import LensFinder6CH
    from dark_halo_scope.models.predict import predictor

    torch.set_num_threads(1)
    settings = RecoverySettings(replicates=options.replicates)
    preprocess = Preprocess6CH(PreprocessSettings(residual=False, stretch="asinh"), options.size)
    model = LensFinder6CH(ModelSettings(backbone=options.backbone, pretrained=False, crop_pix=64), preprocess.channels)
    predict = predictor(model, preprocess, torch.device(options.device), settings.batch)
    rng = np.random.default_rng(0)
    [brick] = bricks_of("test", 1)
    middle, reach = options.brick_pixels / 2, options.brick_pixels / 2 - options.size
    # Positions are those of a 300 pixel brick's frame: its middle is the same place on the sky.
    at = rng.uniform(-reach, reach, (options.hosts, 2)) + 149.5
    hosts = table([host(*at[number].tolist(), brick, number) for number in range(options.hosts)])
    with tempfile.TemporaryDirectory() as folder:
        paths = write_brick(Path(folder), planes(options.brick_pixels), brick, lossless=False)
        tables = [hosts.take(pa.array(range(a, a + n), pa.int64())) for a, n in recovery.units(hosts, settings)]
        warm = render(hosts.take(pa.array([0])), paths, settings, options.size)
        score_rendered(predict, warm)
        if options.workers:
            _together(tables, paths, settings, options, predict)
            return
        start = time.process_time()
        recovery.draw(hosts, settings)
        drawing = time.process_time() - start
        start = time.process_time()
        recovery.cut_bare(hosts, lambda name: BrickCoadds(paths, name), options.size, settings.quality)
        cutting = time.process_time() - start
        start = time.process_time()
        rendered = [render(one, paths, settings, options.size) for one in tables]
        rendering = time.process_time() - start
        images = sum(len(unit.images) for unit in rendered)
        some = torch.from_numpy(rendered[0].images.astype(np.float32))
        start = time.process_time()
        with torch.inference_mode():
            preprocess(some.to(options.device))
        preparing = (time.process_time() - start) * images / len(some)
        start = time.process_time()
        for unit in rendered:
            score_rendered(predict, unit)
        scoring = time.process_time() - start
    whole = rendering + scoring
    print(f"{images} injections of {options.size} pixels, {middle * 2:.0f} pixel brick, {options.backbone}, one core")
    print(f"end to end: {images / whole:.0f}/s; a million in {1e6 * whole / images / 3600:.1f} core hours")
    for name, seconds in (
        ("draws", drawing),
        ("cutting hosts", cutting),
        ("rendering", rendering - drawing - cutting),
        ("preprocessing", preparing),
        ("network", scoring - preparing),
    ):
        print(f"  {name:14} {1e3 * seconds / images:7.3f} ms an injection, {seconds / whole:4.0%}")


def _together(tables: list, paths: dict, settings: RecoverySettings, options: argparse.Namespace, predict) -> None:  # type: ignore[no-untyped-def]
    """Renderers and network side by side, by the clock, once every process has compiled."""
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        first = [
            pool.submit(render, tables[0].take(pa.array([0])), paths, settings, options.size)
            for _ in range(options.workers)
        ]
        for one in first:
            one.result()
        start, images, waiting = time.perf_counter(), 0, deque[Future]()
        for one in tables:
            waiting.append(pool.submit(render, one, paths, settings, options.size))
            if len(waiting) > options.workers + 1:
                images += score_rendered(predict, waiting.popleft().result())[0].num_rows
        while waiting:
            images += score_rendered(predict, waiting.popleft().result())[0].num_rows
        seconds = time.perf_counter() - start
    by = f"{options.workers} renderers and {options.device}"
    print(f"{images} injections in {seconds:.1f} s by {by}: {images / seconds:.0f}/s")


if __name__ == "__main__":
    main()
