"""A trained network put to use, and what it may be used for: images on the sky have no copy without an arc."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES, DIAGNOSTIC_SOURCES, PreprocessSettings
from dark_halo_scope.models.device import resolve_device
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import Predict, predictor
from dark_halo_scope.models.weights import load_model


@dataclass(frozen=True)
class Finder:
    """A trained network, and the device that it shall run on.

    model, preprocess, card: as `load_model` gives them.
    device: where a predictor moves model and preprocessing to.
    """

    model: LensFinder6CH
    preprocess: Preprocess6CH
    card: dict[str, Any]
    device: torch.device

    def predictor(self, batch: int = 256) -> Predict:
        """Raw logits of images and rows, `batch` of them in a forward pass; float32, as all scores are."""
        return predictor(self.model, self.preprocess, self.device, batch)


def open_finder(path: Path, device: str = "auto", threads: int | None = None, diagnostic_too: bool = False) -> Finder:
    """The network of a best.json, ready to score.

    Args:
        path: best.json.
        device: one of `models.device.DEVICES`.
        threads: CPU threads of this process from now on; None or 0 leaves them as they are.
        diagnostic_too: for whoever has pairs, as the measurement of gates has: control channels of a diagnostic cannot
            be made of an image on the sky. Its predictor refuses images whose controls are not given.

    Raises:
        BadInputError: best.json lacks a part, the weights are of another network, or the network is a diagnostic.
        CorruptDataError: the weights are not the bytes that best.json was written for.
        ConfigError: an unknown device, or CUDA where there is none.
    """
    if threads:
        torch.set_num_threads(threads)
    model, preprocess, card = load_model(path)
    if not diagnostic_too:
        _require_deployable(preprocess.settings, path)
    return Finder(model, preprocess, card, resolve_device(device))


def _require_deployable(preprocessing: PreprocessSettings, path: Path) -> None:
    """The preprocessing's own settings decide, whatever best.json says of itself."""
    if preprocessing.deployable:
        return
    known = ", ".join(name for name in CONTROL_SOURCES if name not in DIAGNOSTIC_SOURCES)
    raise BadInputError(
        f"The network of {path} was trained with the control source {preprocessing.control_source}, which no image on "
        f"the sky has: it is a diagnostic and never deployed; train with one of {known}."
    )
