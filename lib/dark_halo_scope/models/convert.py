"""Convert a checkpoint of the earlier pipeline, once and safely, to weights that this one loads."""

import argparse
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.core.files import sha256_file
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.convert_config import ConvertSettings
from dark_halo_scope.models.legacy import (
    LegacyNetwork,
    build_network,
    read_checkpoint,
    recognise,
    recorded_meta_columns,
    recorded_numbers,
    state_dict,
)
from dark_halo_scope.models.weights import save_model

MODULE = "dark_halo_scope.models.convert"

_logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of this command."""
    parser = argument_parser("Convert a checkpoint of the earlier pipeline to safetensors and best.json.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the .pt file")
    parser.add_argument("--output", type=Path, required=True, help="best.json to write")
    parser.add_argument("--generation", required=True, help="name of the generation, for best.json")
    parser.add_argument("--stage", default="main", help="name of the stage, for best.json")
    return parser


def convert(checkpoint: Path, output: Path, settings: ConvertSettings, card: dict[str, Any]) -> dict[str, Any]:
    """Write weights beside `output`, and return what best.json must say.

    Raises:
        BadInputError: the checkpoint is a pickle with code, damaged, or of no known layout.
        ConfigError: settings that contradict the checkpoint.
    """
    contents = read_checkpoint(checkpoint)
    legacy = recognise(state_dict(contents, str(checkpoint)), str(checkpoint))
    _check_stem(legacy, settings, str(checkpoint))
    recorded = recorded_meta_columns(contents)
    if legacy.meta and recorded is not None and recorded != settings.meta_columns:
        raise ConfigError(
            f"{checkpoint} says that it was trained with the metadata {', '.join(recorded)}, and meta_columns says "
            f"{', '.join(settings.meta_columns) or 'none'}; name what it says."
        )
    preprocess = Preprocess6CH(settings.preprocessing, settings.stamp_size)
    if preprocess.channels != legacy.in_channels:
        raise ConfigError(
            f"{checkpoint} takes {legacy.in_channels} channels and this preprocessing makes {preprocess.channels}; "
            "give the preprocessing that it was trained with."
        )
    if preprocess.needs_statistics:
        raise ConfigError(
            "The normalisation training_set needs the mean and the deviation of the images that it was trained with, "
            "which no checkpoint of the earlier pipeline holds; name another one."
        )
    if preprocess.needs_library:
        raise ConfigError(
            f"The control source {settings.preprocessing.control_source} needs the library of controls that it was "
            "trained with, which no checkpoint of the earlier pipeline holds; name another one."
        )
    model = build_network(legacy, settings.meta_columns, str(checkpoint))
    _logger.info("%s is a %s (%s), %d parameters", checkpoint, legacy.backbone, legacy.layout, model.parameters_count)
    origin = {
        "name": checkpoint.name,
        "sha256": sha256_file(checkpoint),
        "layout": legacy.layout,
        "recorded": recorded_numbers(contents),
    }
    return save_model(output, model, preprocess, {**card, "converted_from": origin})


def _check_stem(legacy: LegacyNetwork, settings: ConvertSettings, where: str) -> None:
    """A 3x3 convolution has the same weights whatever its stride and whatever follows: only the user knows.

    Raises:
        ConfigError: it was not said, cannot be built, or was said of another stem.
    """
    given = (settings.stem_stride, settings.stem_pool)
    if legacy.stem != "3x3":
        if given != (None, None):
            raise ConfigError(f"{where} has no 3x3 stem; leave stem_stride and stem_pool out.")
    elif None in given:
        raise ConfigError(
            f"{where} begins with a 3x3 convolution, and its weights do not tell its stride, nor whether pooling "
            "follows; say stem_stride and stem_pool as its training code had them."
        )
    elif given != (1, False):
        raise ConfigError(
            f"{where} has a 3x3 stem of stride {given[0]} {'with' if given[1] else 'without'} pooling, which is not "
            "built here: only stride 1 without pooling is."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and write best.json last."""
    args = build_parser().parse_args(argv)
    started = datetime.now(UTC)
    settings = load_settings(args.settings, ConvertSettings)
    best = convert(args.checkpoint, args.output, settings, {"generation": args.generation, "stage": args.stage})
    write_result(args.output, best, MODULE, settings, [args.checkpoint], started)


if __name__ == "__main__":
    run(main)
