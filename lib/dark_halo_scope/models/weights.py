"""A trained network on disk: weights named by their checksum, a card beside them, and best.json that points at both.

best.json is the only file that another rule takes as input. What it says of the weights is verified before a number
is computed with them.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_bytes, write_json
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.weights_file import pack_tensors, unpack_tensors

WEIGHTS_FOLDER = "weights"  # beside best.json
PREPROCESSING = "preprocessing."  # begins the names of tensors that preprocessing learned
NAME_DIGITS = 16  # of the sha256, in the file's name


def save_model(path: Path, model: LensFinder6CH, preprocess: Preprocess6CH, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write weights and card beside `path`, and return what best.json must say.

    The weights go to `weights/{sha256}.safetensors`, so that a file that is there is never overwritten with others, and
    equal weights give equal bytes. The caller writes the returned object to `path`, last.

    Args:
        path: where best.json will be.
        model: the trained network.
        preprocess: the preprocessing that it was trained with.
        card: what else best.json says (generation, stage, epoch, dataset, val_auc, ...), JSON-ready.
    """
    learned = {PREPROCESSING + name: tensor for name, tensor in preprocess.state_dict().items()}
    data = pack_tensors({**model.state_dict(), **learned})
    sha256 = hashlib.sha256(data).hexdigest()
    weights = Path(path).parent / WEIGHTS_FOLDER / f"{sha256[:NAME_DIGITS]}.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(weights, data)
    described = {
        **card,
        "weights": {"uri": f"{WEIGHTS_FOLDER}/{weights.name}", "bytes": len(data), "sha256": sha256},
        "model": model.settings.model_dump(mode="json"),
        "preprocessing": preprocess.settings.model_dump(mode="json"),
        "deployable": preprocess.settings.deployable,
        "stamp_size": preprocess.size,
        "in_channels": model.in_channels,
        "meta": {
            "columns": list(model.settings.meta_columns),
            "mean": model.meta_mean.tolist(),
            "std": model.meta_std.tolist(),
        },
        "parameters": model.parameters_count,
    }
    # The card lies in the weights' own folder.
    write_json(weights.with_suffix(".json"), {**described, "weights": {**described["weights"], "uri": weights.name}})
    return described


def load_model(path: Path) -> tuple[LensFinder6CH, Preprocess6CH, dict[str, Any]]:
    """The network that a best.json describes, in evaluation mode on the CPU, its preprocessing, and best.json itself.

    Raises:
        BadInputError: best.json lacks a part, or the weights are not safetensors or of another network.
        CorruptDataError: the weights are not the bytes that best.json was written for.
    """
    path = Path(path)
    card = read_json(path)
    try:
        recorded = card["weights"]
        uri, size, sha256 = str(recorded["uri"]), int(recorded["bytes"]), str(recorded["sha256"])
        in_channels, stamp_size = int(card["in_channels"]), int(card["stamp_size"])
        settings = validate(ModelSettings, card["model"], f"{path}, model")
        preprocessing = validate(PreprocessSettings, card["preprocessing"], f"{path}, preprocessing")
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} is no description of a trained model ({error!r}); train it again.") from error
    weights = path.parent / uri
    if not weights.resolve().is_relative_to(path.parent.resolve()):
        raise BadInputError(f"{path} names weights outside of its own folder ({uri}), which are not read.")
    data = _verified_bytes(weights, size, sha256, path)
    model = LensFinder6CH(settings, in_channels, load_weights=False)
    preprocess = Preprocess6CH(preprocessing, stamp_size).eval()
    tensors = unpack_tensors(data, str(weights))
    learned = [name for name in tensors if name.startswith(PREPROCESSING)]
    try:
        preprocess.restore_learned({name.removeprefix(PREPROCESSING): tensors.pop(name) for name in learned})
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise BadInputError(f"{weights} holds weights of another network than {path} says ({first_line}).") from error
    model.eval()
    return model, preprocess, card


def _verified_bytes(weights: Path, size: int, sha256: str, described_by: Path) -> bytes:
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"The weights {weights} that {described_by} names cannot be read ({error.strerror}); restore them or "
            "train again."
        ) from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptDataError(
            f"The weights {weights} ({len(data)} bytes) are not those that {described_by} was written for "
            f"({size} bytes, sha256 {sha256[:NAME_DIGITS]}...); restore them or train again."
        )
    return data
