"""Weights of an earlier stage, from which a stage begins with an optimiser of its own."""

import logging
from dataclasses import dataclass
from pathlib import Path

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.weights import load_model

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartWeights:
    """A trained network, and the best.json that describes it."""

    path: Path
    sha256: str
    model: LensFinder6CH
    preprocess: Preprocess6CH

    def load_into(self, model: LensFinder6CH, preprocess: Preprocess6CH) -> None:
        """Give these weights to a network, with what metadata and preprocessing learned of their images.

        Raises:
            BadInputError: another architecture.
        """
        theirs, ours = self.model.state_dict(), model.state_dict()
        different = sorted(
            name
            for name in theirs.keys() | ours.keys()
            if name not in theirs or name not in ours or theirs[name].shape != ours[name].shape
        )
        columns = (self.model.settings.meta_columns, model.settings.meta_columns)
        if different or columns[0] != columns[1]:
            first = f"; {len(different)} weights differ, the first is {different[0]}" if different else ""
            raise BadInputError(
                f"A stage cannot start from {self.path}, whose network is {_described(self.model)} where this one is "
                f"{_described(model)}{first}; give both stages the same `model` and `preprocessing`."
            )
        model.load_state_dict(theirs)
        if self.preprocess.settings != preprocess.settings:
            _logger.warning("%s was trained with another preprocessing than this stage has", self.path)
        if preprocess.learns:
            preprocess.restore_learned(self.preprocess.state_dict())


def open_start(path: Path) -> StartWeights:
    """The network that the best.json `path` describes.

    Raises:
        BadInputError, CorruptDataError: as `load_model` does.
    """
    model, preprocess, card = load_model(path)
    return StartWeights(path, str(card["weights"]["sha256"]), model, preprocess)


def _described(model: LensFinder6CH) -> str:
    columns = ", ".join(model.settings.meta_columns) or "no metadata"
    return f"a {model.settings.backbone} of {model.in_channels} channels with {columns}"
