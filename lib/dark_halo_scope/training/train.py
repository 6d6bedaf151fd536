"""Train one stage of a generation on packed pairs."""

import argparse
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.code import run_key
from dark_halo_scope.core.files import make_directory, remove_tree
from dark_halo_scope.core.locks import lock
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.models.device import DEVICES, resolve_device
from dark_halo_scope.models.weights import save_model
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.loop import Trainer, history_json

MODULE = "dark_halo_scope.training.train"

_logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of this command."""
    parser = argument_parser("Train one stage of a generation on packed pairs.")
    parser.add_argument("--packed", type=Path, required=True, help="manifest of the packed dataset")
    parser.add_argument("--output", type=Path, required=True, help="best.json to write")
    parser.add_argument("--history", type=Path, required=True, help="history.json to write")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of checkpoints to resume from")
    parser.add_argument("--generation", default="gen5_prime", help="name of the generation, for best.json")
    parser.add_argument("--stage", default="main", help="name of the stage, for best.json")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or go on training, and write best.json and history.json last.

    A run that was killed is resumed when the same code, settings and data are given again. When both results are
    written, its checkpoints are removed.
    """
    args = build_parser().parse_args(argv)
    started = datetime.now(UTC)
    settings = load_settings(args.settings, TrainSettings)
    device = resolve_device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    checkpoints = args.checkpoints / run_key(MODULE, settings, [args.packed])
    make_directory(checkpoints)
    with lock(args.checkpoints / f"{checkpoints.name}.lock"):
        train, val = open_packed(args.packed, "train"), open_packed(args.packed, "val")
        trainer = Trainer(settings, train, val, device, checkpoints)
        _logger.info(
            "Training %s, %d parameters, on %d pairs (%s, %s)",
            settings.model.backbone,
            trainer.model.parameters_count,
            len(trainer.train_data),
            device.type,
            str(trainer.dtype).removeprefix("torch."),
        )
        result = trainer.run()
        card = {
            "generation": args.generation,
            "stage": args.stage,
            "dataset": args.packed.parent.name,
            "epoch": result.best["epoch"],
            "val_auc": result.best["val_auc"],
            "val_loss": result.best["val_loss"],
            "training": settings.model_dump(mode="json"),
        }
        best = save_model(args.output, result.model, result.preprocess, card)
        write_result(args.history, history_json(result), MODULE, settings, [args.packed], started)
        write_result(args.output, best, MODULE, settings, [args.packed], started)
        remove_tree(checkpoints)


if __name__ == "__main__":
    run(main)
