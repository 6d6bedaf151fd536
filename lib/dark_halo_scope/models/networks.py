"""Backbones: images (B, C, H, W) to features (B, F). Small 3x3 networks of this project beside everything timm has."""

import copy
from collections.abc import Callable
from typing import Any

import requests
import torch
from torch import nn

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.weights_file import read_tensors

ONLINE_CHECK_SECONDS = 10
RGB = 3  # channels of published weights


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, batch normalisation, and a ReLU unless told otherwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True) if relu else nn.Identity(),
        )


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, pooled and projected where the shape changes (ResNet-D, He et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormReLU(inputs, outputs, stride=stride), ConvNormReLU(outputs, outputs, relu=False)
        )
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), ConvNormReLU(inputs, outputs, 1, relu=False))
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, outputs, ceil(H / stride), ceil(W / stride))."""
        return torch.relu(self.body(x_BCHW) + self.shortcut(x_BCHW))


class SmallCNN(nn.Module):
    """A 3x3 residual network for thousands of pairs, of which a patch stem cannot learn the shape of arcs.

    A stride-2 stem (DR10's PSF is five pixels wide, so half the pixels hold it), then stages of `width`, 2 `width`,
    4 `width`... channels at half the resolution each. The mean says how much there is of a feature, the maximum
    whether there is one anywhere: both leave the backbone.
    """

    def __init__(self, in_channels: int, width: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormReLU(in_channels, width, stride=2)]
        inputs = width
        for stage, depth in enumerate(depths):
            outputs = width * 2**stage
            for block in range(depth):
                layers.append(ResidualBlock(inputs, outputs, stride=2 if stage and block == 0 else 1))
                inputs = outputs
        self.stages = nn.Sequential(*layers)
        self.num_features = 2 * inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, num_features)."""
        x_BCHW = self.stages(x_BCHW)
        return torch.cat([x_BCHW.mean((2, 3)), x_BCHW.amax((2, 3))], dim=1)


def small_cnn(settings: ModelSettings, in_channels: int) -> nn.Module:
    """The network of the embedded survey."""
    return SmallCNN(in_channels, settings.width, settings.depths)


#: Networks of this project by name. A new one is a function here and a line below.
NETWORKS: dict[str, Callable[[ModelSettings, int], nn.Module]] = {"small_cnn": small_cnn}


def create_backbone(settings: ModelSettings, in_channels: int, load_weights: bool = True) -> tuple[nn.Module, int]:
    """A backbone and the number of its features.

    `load_weights=False` leaves published weights out, for a model whose own weights are about to be loaded.

    Raises:
        ConfigError: an unknown name, weights that cannot be had, or an option that this backbone does not have.
        BadInputError: the weights' file is no safetensors file, or of another network.
    """
    if settings.backbone in NETWORKS:
        if load_weights and (settings.pretrained or settings.checkpoint_path is not None):
            raise ConfigError(
                f"{settings.backbone} has no published weights; set pretrained to false and checkpoint_path to null."
            )
        if settings.stem != "timm" or not settings.head_norm:
            raise ConfigError(
                f"{settings.backbone} has one stem and no norm before its head; leave stem and head_norm as they are."
            )
        backbone: Any = NETWORKS[settings.backbone](settings, in_channels)
        return backbone, int(backbone.num_features)
    import timm  # takes longer to import than torch, and the small networks do not need it

    if not timm.is_model(settings.backbone):
        raise ConfigError(
            f"There is no backbone {settings.backbone!r}: choose {', '.join(sorted(NETWORKS))} or a name that "
            "timm.list_models() prints."
        )
    backbone = timm.create_model(settings.backbone, pretrained=False, num_classes=0)
    if load_weights and settings.checkpoint_path is not None:
        load_backbone_weights(backbone, settings.checkpoint_path)
    elif load_weights and settings.pretrained:
        load_backbone_weights(backbone, published_weights(settings.backbone))
    trained = load_weights and (settings.pretrained or settings.checkpoint_path is not None)
    if settings.stem == "3x3":
        small_stem(backbone, settings.backbone)
        trained = False
    if not settings.head_norm:
        drop_head_norm(backbone, settings.backbone)
    widen_first_layer(backbone, in_channels, settings.init, trained)
    return backbone, int(backbone.num_features)


def published_weights(name: str) -> str:
    """Local path of timm's published safetensors weights of a model, downloaded where the cache lacks them.

    Raises:
        ConfigError: there are none, or the Hub cannot be reached.
    """
    import huggingface_hub as hub
    import timm

    configuration = timm.get_pretrained_cfg(name)
    hub_id = getattr(configuration, "hf_hub_id", None)
    remedy = "set checkpoint_path to a safetensors file of these weights, or pretrained to false"
    if not hub_id:
        raise ConfigError(f"timm publishes no weights of {name}; {remedy}.")
    cached = hub.try_to_load_from_cache(hub_id, "model.safetensors")
    if isinstance(cached, str):
        return cached
    try:
        # The Hub's own client retries for half a minute before it says that there is no network.
        response = requests.head(hub.hf_hub_url(hub_id, "model.safetensors"), timeout=ONLINE_CHECK_SECONDS)
        response.raise_for_status()
        return str(hub.hf_hub_download(hub_id, "model.safetensors"))
    except OSError as error:
        raise ConfigError(
            f"The pretrained weights {hub_id} of {name} are not in the local cache and cannot be downloaded here "
            f"({type(error).__name__}); {remedy}."
        ) from error


def load_backbone_weights(backbone: nn.Module, path: str) -> None:
    """Load timm weights of three-channel images from a safetensors file; the classifier in it is left out.

    Raises:
        BadInputError: not a safetensors file, or weights of another network.
    """
    tensors = read_tensors(path)
    classifier = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = backbone.state_dict()
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name in own or not any(name.startswith(f"{head}.") for head in heads)
    }
    differing = sorted(set(own) ^ set(tensors)) + sorted(
        name for name in set(own) & set(tensors) if own[name].shape != tensors[name].shape
    )
    if differing:
        raise BadInputError(
            f"{path} holds weights of another network: {', '.join(differing[:5])} differ; give the backbone's own."
        )
    backbone.load_state_dict(tensors)


def small_stem(backbone: nn.Module, name: str) -> None:
    """Let a ResNet begin with a 3x3 convolution of stride 1 and no pooling, for stamps of 64 pixels.

    Its published 7x7 weights are for images of 224 pixels: the new layer is drawn as He et al. (2015) say, all other
    layers keep theirs.

    Raises:
        ConfigError: not a ResNet with one convolution before its pooling.
    """
    first = getattr(backbone, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(backbone, "maxpool"):
        raise ConfigError(f"stem 3x3 is for ResNets such as resnet18, not for {name}; set stem to timm.")
    stem = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    backbone.conv1, backbone.maxpool = stem, nn.Identity()


def drop_head_norm(backbone: nn.Module, name: str) -> None:
    """Take away the norm between a ConvNeXt's pooling and its head, as checkpoints of the earlier pipeline have it.

    Raises:
        ConfigError: the backbone has none.
    """
    head = getattr(backbone, "head", None)
    if head is None or isinstance(getattr(head, "norm", nn.Identity()), nn.Identity):
        raise ConfigError(f"{name} has no norm before its head to leave out; set head_norm to true.")
    head.norm = nn.Identity()


def widen_first_layer(backbone: nn.Module, in_channels: int, init: str, trained: bool) -> None:
    """Let a three-channel backbone take more channels.

    Its weights of the first three channels stay. The others are zero (`copy_or_zero`), so that the network begins as
    what it was on the first three, or drawn as Kaiming et al. (2015) say (`kaiming`); an untrained backbone with
    `kaiming` has all channels drawn.
    """
    if in_channels == RGB:
        return
    convolutions = ((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d))
    name, module = next(convolutions, ("", nn.Conv2d(1, 1, 1)))
    if module.in_channels != RGB or module.groups != 1:
        raise ConfigError(
            f"The backbone's first convolution {name!r} does not take three channels; choose another one."
        )
    # A copy: first layers come in many kinds (TensorFlow's pad unevenly), of which only the weights are replaced.
    wide = copy.deepcopy(module)
    wide.in_channels = in_channels
    wide.weight = nn.Parameter(module.weight.new_empty(module.out_channels, in_channels, *module.kernel_size))
    with torch.no_grad():
        nn.init.kaiming_normal_(wide.weight, nonlinearity="linear")
        if init == "copy_or_zero":
            wide.weight[:, RGB:] = 0
        if init == "copy_or_zero" or trained:
            wide.weight[:, : min(RGB, in_channels)] = module.weight[:, :in_channels]
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, wide)
