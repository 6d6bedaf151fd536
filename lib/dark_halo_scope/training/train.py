"""Train one stage of a generation on packed images."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.code import run_key
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.core.files import make_directory, remove_tree
from dark_halo_scope.core.locks import lock
from dark_halo_scope.core.manifest import load_manifest, write_result
from dark_halo_scope.images.mined import open_mined
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.models.device import DEVICES, resolve_device
from dark_halo_scope.models.weights import save_model
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.distributed import Ranks, joined, launch, launched, rank_device
from dark_halo_scope.training.history import write_history
from dark_halo_scope.training.loop import Trainer
from dark_halo_scope.training.start import open_start
from dark_halo_scope.training.tracking import TRACKERS, open_tracker

MODULE = "dark_halo_scope.training.train"

_logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of this command."""
    parser = argument_parser("Train one stage of a generation on packed images.")
    parser.add_argument("--packed", type=Path, required=True, help="manifest of the packed dataset")
    parser.add_argument("--output", type=Path, required=True, help="best.json to write")
    parser.add_argument("--history", type=Path, required=True, help="history.json to write")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of checkpoints to resume from")
    parser.add_argument(
        "--start", type=Path, nargs="*", default=[], help="best.json of a stage to begin from (or none)"
    )
    parser.add_argument(
        "--hard-negatives", type=Path, nargs="*", default=[], help="mined hard_negatives.json for the pool (or none)"
    )
    parser.add_argument("--generation", default="gen5_prime", help="name of the generation, for best.json")
    parser.add_argument("--stage", default="main", help="name of the stage, for best.json")
    parser.add_argument(
        "--tracking", choices=TRACKERS, default="tensorboard", help="where to watch the run (default: tensorboard)"
    )
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--gpus", type=int, default=1, help="processes that train together, a GPU each (default: 1)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of all processes (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or go on training, and write best.json and history.json last.

    A run that was killed is resumed when the same code, settings and data are given again, with any number of
    processes. When both results are written, its checkpoints are removed.
    """
    args = build_parser().parse_args(argv)
    for option, given in (("--start", args.start), ("--hard-negatives", args.hard_negatives)):
        if len(given) > 1:
            raise ConfigError(f"{option} takes one file and got {len(given)}; give the one that is meant.")
    settings = load_settings(args.settings, TrainSettings)
    if launched():
        device_type = rank_device(args.device, args.gpus)
    elif args.gpus > 1:
        rank_device(args.device, args.gpus)
        launch(MODULE, sys.argv[1:] if argv is None else argv, args.gpus)
        return
    else:
        device_type = resolve_device(args.device).type
    with joined(device_type) as ranks:
        if args.threads is not None:
            torch.set_num_threads(max(1, args.threads // ranks.size))
        train(args, settings, torch.device("cpu" if device_type == "cpu" else f"cuda:{ranks.local}"), ranks)


def train(args: argparse.Namespace, settings: TrainSettings, device: torch.device, ranks: Ranks) -> None:
    """Train as one of `ranks`; the first of them writes."""
    started = datetime.now(UTC)
    inputs = [args.packed, *args.start, *args.hard_negatives]
    key = run_key(MODULE, settings, inputs)
    checkpoints = args.checkpoints / key
    make_directory(checkpoints)
    with contextlib.ExitStack() as held:
        tracker = None
        if ranks.first:
            held.enter_context(lock(args.checkpoints / f"{key}.lock"))
            # Not a data prefix by its name, which clean_orphans would remove.
            watched = args.checkpoints.parent / "tracking" / f"run-{key}"
            tracker = open_tracker(args.tracking, watched, f"{args.generation}/{args.stage}")
            held.callback(tracker.close)
        start = open_start(args.start[0]) if args.start else None
        trainer = Trainer(
            settings,
            open_packed(args.packed, "train"),
            open_packed(args.packed, "val"),
            device,
            checkpoints,
            mined=open_mined(args.hard_negatives[0]) if args.hard_negatives else None,
            start=start,
            ranks=ranks,
            tracker=tracker,
        )
        _logger.info(
            "Training %s, %d parameters, on %d pairs and a pool of %d (%d x %s, %s)",
            settings.model.backbone,
            trainer.model.parameters_count,
            len(trainer.train_data.pairs_N),
            len(trainer.train_data.pool_M),
            ranks.size,
            device.type,
            str(trainer.stepper.dtype).removeprefix("torch."),
        )
        result = trainer.run()
        if result is None:
            return
        card = {
            "generation": args.generation,
            "stage": args.stage,
            "dataset": args.packed.parent.name,
            "epoch": result.best["epoch"],
            "val_auc": result.best["val_auc"],
            "val_loss": result.best["val_loss"],
            "start_sha256": None if start is None else start.sha256,
            "hard_negatives_sha256": load_manifest(args.hard_negatives[0]).sha256 if args.hard_negatives else None,
            "training": settings.model_dump(mode="json"),
        }
        best = save_model(args.output, result.model, result.preprocess, card)
        write_history(args.history, result, MODULE, settings, inputs, started)
        write_result(args.output, best, MODULE, settings, inputs, started)
        remove_tree(checkpoints)


if __name__ == "__main__":
    run(main)
