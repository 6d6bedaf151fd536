"""Checkpoints of the earlier pipeline: read without running anything in them, and rebuilt as networks of this one.

Three layouts are known (contract section 5; seed 004 section 9), each with torchvision's names:

    plain                 resnet18 or resnet34 with `fc`, ConvNeXt with `classifier.2`, EfficientNet-B0 with
                          `classifier.1`, each of one logit
    wrapped               the same networks as `backbone` without their classifier, and a linear `head`; what ConvNeXt
                          loses with its classifier includes the layer normalisation of its features
    wrapped, metadata     as before, with `head.meta_mlp` of the metadata in their own units beside the image's
                          features, and `head.classifier` of two layers on both (LensFinder6CH)

The state dict is the whole file, or lies in it as `model`, `model_state_dict` or `state_dict`, and its names may carry
the prefixes of wrappers (`module.`, `_orig_mod.`, `model.`).
"""

import math
import numbers
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH

STATE_KEYS = ("model", "model_state_dict", "state_dict")
PREFIXES = ("module.", "_orig_mod.", "model.")
CONFIG_KEYS = ("args", "cfg", "config")


class Family(NamedTuple):
    """Networks of one kind, and how to tell them by their tensors.

    `sign` is a name that no other family has, `first` the first convolution, `classifier` the last layer of a plain
    network; `variants` are timm's names by the depth of each stage and the channels of the first convolution.
    """

    sign: str
    first: str
    classifier: str
    stage: str
    stages: range
    variants: dict[tuple[Any, ...], str]


FAMILIES = {
    "resnet": Family(
        "layer1.0.conv1.weight",
        "conv1.weight",
        "fc.",
        r"layer{}\.(\d+)\.",
        range(1, 5),
        {((2, 2, 2, 2), 64): "resnet18", ((3, 4, 6, 3), 64): "resnet34"},
    ),
    "convnext": Family(
        "features.1.0.layer_scale",
        "features.0.0.weight",
        "classifier.2.",
        r"features\.{}\.(\d+)\.",
        range(1, 8, 2),
        {
            ((3, 3, 9, 3), 96): "convnext_tiny",
            ((3, 3, 27, 3), 96): "convnext_small",
            ((3, 3, 27, 3), 128): "convnext_base",
        },
    ),
    "efficientnet": Family(
        "features.1.0.block.1.fc1.weight",
        "features.0.0.weight",
        "classifier.1.",
        r"features\.{}\.(\d+)\.",
        range(1, 8),
        {((1, 2, 2, 3, 3, 4, 1), 32): "efficientnet_b0"},
    ),
}

#: Metadata entered in their own units; here they are standardised and clipped. A mean of zero and a power of two this
#: large as deviation change no bit of the product with weights that are larger by it, and clip nothing below 5 million.
META_SCALE = 2.0**20

#: NumPy's types of plain numbers, as its pickles name them.
_NUMBER_TYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})

Tensors = dict[str, torch.Tensor]


class _NumberType:
    """Stands for `numpy.dtype` while a checkpoint is read: the name of a number's type and its byte order.

    NumPy's own takes whatever flags a pickle gives it, and with some of them reads numbers from other memory.
    """

    def __init__(self, name: str, *_: object) -> None:
        if name not in _NUMBER_TYPES:
            raise pickle.UnpicklingError(f"{name!r} is no type of numbers")
        self.name = name
        self.order = "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Take the byte order and leave all flags."""
        if state[1] not in ("<", ">", "|"):
            raise pickle.UnpicklingError(f"{state[1]!r} is no byte order")
        self.order = str(state[1])


def _number(kind: _NumberType, raw: bytes) -> float | int | bool:
    """Stands for NumPy's function of this purpose: the number whose bytes a checkpoint holds."""
    dtype = np.dtype(kind.order + kind.name)
    if not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        raise pickle.UnpicklingError(f"a number of type {kind.name} does not have {dtype.itemsize} bytes")
    value: float | int | bool = np.frombuffer(raw, dtype)[0].item()
    return value


# Numbers that training wrote beside the weights, by NumPy's names for what makes them: data, and code of ours.
_NUMPY_NUMBERS: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_NumberType, "numpy.dtype"),
]


class Linear(NamedTuple):
    """A fully connected layer: weight (out, in) and bias (out,)."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class LegacyNetwork:
    """What a state dict of the earlier pipeline holds, under the names of this one.

    `features` has the backbone's tensors by timm's names; `meta` no layer or two; `head` one layer or two, the last
    of one logit.
    """

    layout: str
    backbone: str
    in_channels: int
    stem: Literal["timm", "3x3"]
    head_norm: bool
    features: Tensors
    meta: tuple[Linear, ...]
    head: tuple[Linear, ...]


def read_checkpoint(path: Path) -> Any:
    """What torch.save wrote to `path`, on the CPU: tensors, numbers, strings and containers, and nothing that can run.

    Raises:
        BadInputError: no such file, one that asks for code to be run, or no whole checkpoint.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror}); give the path of a checkpoint.") from error
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise BadInputError(
                f"{path} is a pickle that would run {wanted[1]} when it is read, and is refused; save the bare state "
                "dict where you trust it, and convert that."
            ) from error
        raise BadInputError(f"{path} is no checkpoint that can be read safely; give one of torch.save.") from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path} is not a whole checkpoint ({type(error).__name__}); fetch it again.") from error


def state_dict(checkpoint: Any, where: str) -> Tensors:
    """The network's tensors in a checkpoint, in float32 where they are not integers, without prefixes of wrappers.

    Raises:
        BadInputError: there are none, or values that are not finite.
    """
    places = [checkpoint, *(checkpoint.get(key) for key in STATE_KEYS)] if isinstance(checkpoint, Mapping) else []
    found: Tensors = next((dict(place) for place in places if place is not None and _is_state_dict(place)), {})
    if not found:
        raise BadInputError(
            f"{where} holds no state dict: looked for tensors at the top and under {', '.join(STATE_KEYS)}; save the "
            "network's state dict."
        )
    while prefix := next((text for text in PREFIXES if all(name.startswith(text) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise BadInputError(f"{where} holds weights that are not finite ({', '.join(bad[:3])}); take another epoch's.")
    return tensors


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized


def recorded_numbers(checkpoint: Any) -> dict[str, float | int]:
    """Finite numbers that training wrote beside the weights, such as the epoch."""
    if not isinstance(checkpoint, Mapping):
        return {}
    return {
        str(name): int(value) if isinstance(value, numbers.Integral) else float(value)
        for name, value in sorted(checkpoint.items(), key=lambda item: str(item[0]))
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    }


def recorded_meta_columns(checkpoint: Any) -> tuple[str, ...] | None:
    """Metadata columns that training wrote beside the weights, in its order; None where it wrote none."""
    for key in CONFIG_KEYS:
        config = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
        columns = config.get("meta_cols") if isinstance(config, Mapping) else None
        if isinstance(columns, str):
            columns = columns.split(",")
        if isinstance(columns, list | tuple) and columns:
            return tuple(str(column).strip() for column in columns if str(column).strip())
    return None


def recognise(tensors: Tensors, where: str) -> LegacyNetwork:
    """The network that a state dict of the earlier pipeline belongs to.

    Raises:
        BadInputError: none of the known layouts; the sentence says what was looked for.
    """
    wrapped = all(name.startswith(("backbone.", "head.")) for name in tensors)
    body = _below(tensors, "backbone.") if wrapped else tensors
    family = next((family for family, known in FAMILIES.items() if known.sign in body and known.first in body), "")
    meta = _linears(_below(tensors, "head.meta_mlp.")) if wrapped else ()
    if wrapped:
        layout = "wrapped, metadata" if meta else "wrapped"
        head = _linears(_below(tensors, "head.classifier." if meta else "head."))
    else:
        layout = "plain"
        classifier = FAMILIES[family].classifier if family else " "
        body = {name: tensor for name, tensor in tensors.items() if not name.startswith(classifier)}
        head = _linears({f"0.{name}": tensor for name, tensor in _below(tensors, classifier).items()})
    fits = (len(meta), len(head)) in ((0, 1), (2, 2)) and head[-1].weight.shape[0] == 1
    if not family or not fits or len(body) + 2 * len(meta + head) != len(tensors):
        raise BadInputError(
            f"{where} has none of the known layouts: looked for torchvision's resnet, ConvNeXt and EfficientNet, each "
            "with its one-logit classifier or as `backbone` beside a `head` (linear, or `meta_mlp` and `classifier`); "
            f"its first names are {', '.join(list(tensors)[:4])}."
        )
    renames: dict[str, Callable[[str], str]] = {"convnext": _convnext_name, "efficientnet": _efficientnet_name}
    rename = renames.get(family, str)
    features = {rename(name): tensor for name, tensor in body.items()}
    if family == "convnext":
        # A parameter per channel: torchvision keeps it broadcastable to images, timm flat.
        features = {name: tensor.flatten() if name.endswith("gamma") else tensor for name, tensor in features.items()}
    first, known = body[FAMILIES[family].first], FAMILIES[family].variants
    shape = (_depths(body, FAMILIES[family]), *first.shape[:1])
    if first.ndim != 4 or shape not in known:
        raise BadInputError(
            f"{where} holds a {family} of depths and channels {shape}, which is none of {', '.join(known.values())}."
        )
    return LegacyNetwork(
        layout=layout,
        backbone=known[shape],
        in_channels=int(first.shape[1]),
        stem="3x3" if family == "resnet" and tuple(first.shape[2:]) == (3, 3) else "timm",
        head_norm=family != "convnext" or "head.norm.weight" in features,
        features=features,
        meta=meta,
        head=head,
    )


def build_network(legacy: LegacyNetwork, meta_columns: tuple[str, ...], where: str) -> LensFinder6CH:
    """The same function of images and metadata as a network of this project, in evaluation mode.

    Raises:
        BadInputError: metadata columns that do not fit, or tensors that are missing, superfluous or of another shape.
    """
    inputs = legacy.meta[0].weight.shape[1] if legacy.meta else 0
    if inputs != len(meta_columns):
        raise BadInputError(
            f"{where} was trained with {inputs} metadata columns and meta_columns names {len(meta_columns)}; name them "
            "in its order."
        )
    head = legacy.head if len(legacy.head) == 2 else _as_two_layers(legacy.head[0])
    settings = ModelSettings(
        backbone=legacy.backbone,
        pretrained=False,
        stem=legacy.stem,
        head_norm=legacy.head_norm,
        fusion="late",
        meta_columns=meta_columns,
        hidden=int(head[0].weight.shape[0]),
        # Two rows that stand for one must both stay when training goes on.
        dropout=0.1 if len(legacy.head) == 2 else 0.0,
    )
    model = LensFinder6CH(settings, legacy.in_channels, load_weights=False)
    tensors = {f"backbone.{name}": tensor for name, tensor in legacy.features.items()}
    tensors |= _named("head", head) | _named("meta", _unstandardised(legacy.meta))
    tensors |= {"meta_mean": torch.zeros(inputs), "meta_std": torch.full((inputs,), META_SCALE)}
    own = model.state_dict()
    differing = sorted(set(own) ^ set(tensors)) + sorted(
        name for name in set(own) & set(tensors) if own[name].shape != tensors[name].shape
    )
    if differing:
        raise BadInputError(
            f"{where} is not the {legacy.backbone} ({legacy.layout}) that it looked like: {', '.join(differing[:5])} "
            "differ."
        )
    model.load_state_dict(tensors)
    return model.eval()


def _as_two_layers(layer: Linear) -> tuple[Linear, Linear]:
    """A linear logit as two layers with a ReLU between them: x = relu(x) - relu(-x), exactly."""
    return (
        Linear(torch.cat([layer.weight, -layer.weight]), torch.cat([layer.bias, -layer.bias])),
        Linear(torch.tensor([[1.0, -1.0]]), torch.zeros(1)),
    )


def _unstandardised(meta: tuple[Linear, ...]) -> tuple[Linear, ...]:
    return (Linear(meta[0].weight * META_SCALE, meta[0].bias), *meta[1:]) if meta else ()


def _named(part: str, layers: tuple[Linear, ...]) -> Tensors:
    """Two layers under their names in a LensFinder6CH."""
    last = {"head": 3, "meta": 2}[part]
    return {
        f"{part}.{index}.{name}": tensor
        for index, layer in zip((0, last), layers, strict=False)
        for name, tensor in layer._asdict().items()
    }


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _linears(own: Tensors) -> tuple[Linear, ...]:
    """The fully connected layers of an nn.Sequential, in its order; none where one has no bias or another shape."""
    indices = sorted({int(name.partition(".")[0]) for name in own if re.fullmatch(r"\d+\.(weight|bias)", name)})
    pairs = [(own.get(f"{index}.weight"), own.get(f"{index}.bias")) for index in indices]
    layers = [Linear(weight, bias) for weight, bias in pairs if weight is not None and bias is not None]
    flat = all(layer.weight.ndim == 2 and layer.bias.shape == layer.weight.shape[:1] for layer in layers)
    return tuple(layers) if flat and len(layers) == len(pairs) else ()


def _depths(body: Tensors, family: Family) -> tuple[int, ...]:
    """Blocks of each stage."""
    patterns = [re.compile(family.stage.format(stage)) for stage in family.stages]
    return tuple(len({match[1] for name in body if (match := pattern.match(name))}) for pattern in patterns)


def _convnext_name(name: str) -> str:
    """Timm's name of a tensor of torchvision's ConvNeXt; what is none of them keeps its name."""
    if name.startswith("classifier.0."):
        return name.replace("classifier.0.", "head.norm.")
    match = re.fullmatch(r"features\.(\d)\.(\d+)\.(.+)", name)
    if match is None:
        return name
    place, index, rest = int(match[1]), match[2], match[3]
    if place == 0:
        return f"stem.{index}.{rest}"
    if place % 2 == 0:
        return f"stages.{place // 2}.downsample.{index}.{rest}"
    parts = {
        "block.0": "conv_dw",
        "block.2": "norm",
        "block.3": "mlp.fc1",
        "block.5": "mlp.fc2",
        "layer_scale": "gamma",
    }
    for theirs, ours in parts.items():
        if rest == theirs or rest.startswith(f"{theirs}."):
            return f"stages.{place // 2}.blocks.{index}.{ours}{rest.removeprefix(theirs)}"
    return name


def _efficientnet_name(name: str) -> str:
    """Timm's name of a tensor of torchvision's EfficientNet; what is none of them keeps its name."""
    ends = re.fullmatch(r"features\.([08])\.([01])\.(.+)", name)
    if ends is not None:
        return f"{ {'00': 'conv_stem', '01': 'bn1', '80': 'conv_head', '81': 'bn2'}[ends[1] + ends[2]] }.{ends[3]}"
    match = re.fullmatch(r"features\.([1-7])\.(\d+)\.block\.(\d\.(?:[01]|fc[12]))\.(.+)", name)
    if match is None:
        return name
    stage = int(match[1])
    # The first stage does not widen its input, so that its blocks lack the first convolution.
    first = {"0.0": "conv_dw", "0.1": "bn1", "1.fc1": "se.conv_reduce", "1.fc2": "se.conv_expand"}
    first |= {"2.0": "conv_pw", "2.1": "bn2"}
    others = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2.fc1": "se.conv_reduce"}
    others |= {"2.fc2": "se.conv_expand", "3.0": "conv_pwl", "3.1": "bn3"}
    part = (first if stage == 1 else others).get(match[3])
    return name if part is None else f"blocks.{stage - 1}.{match[2]}.{part}.{match[4]}"
