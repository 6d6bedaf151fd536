"""Backbones: by name, with six channels, with published weights or none, and never from a pickle."""

import pickle
from pathlib import Path

import pytest
import requests
import timm
import torch
from safetensors.torch import save_file

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.networks import create_backbone

ATTO = "convnext_atto"  # the plan's family, small enough for tests


@pytest.fixture
def atto_weights(tmp_path: Path) -> Path:
    torch.manual_seed(9)
    path = tmp_path / "atto.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in timm.create_model(ATTO).state_dict().items()}, path)
    return path


def first_layer(backbone: torch.nn.Module) -> torch.Tensor:
    return next(module for module in backbone.modules() if isinstance(module, torch.nn.Conv2d)).weight


@pytest.mark.parametrize("size", [40, 48, 64, 101])
def test_the_small_network_takes_any_stamp(size: int) -> None:
    backbone, features = create_backbone(ModelSettings(backbone="small_cnn", pretrained=False), 6)
    assert backbone(torch.randn(2, 6, size, size)).shape == (2, features)


def test_the_small_network_has_a_third_of_a_million_parameters() -> None:
    backbone, _ = create_backbone(ModelSettings(backbone="small_cnn", pretrained=False), 6)
    assert 0.3e6 < sum(parameter.numel() for parameter in backbone.parameters()) < 1e6


def test_copy_or_zero_starts_as_the_trained_network_on_the_first_three_channels(atto_weights: Path) -> None:
    torch.manual_seed(9)
    published = timm.create_model(ATTO, num_classes=0).eval()
    published.load_state_dict({k: v for k, v in timm_state(atto_weights).items() if not k.startswith("head.fc")})
    settings = ModelSettings(backbone=ATTO, checkpoint_path=str(atto_weights))
    backbone, _ = create_backbone(settings, 6)
    weight = first_layer(backbone)
    assert weight.shape[1] == 6
    assert not weight[:, 3:].any()
    x = torch.randn(2, 6, 64, 64)
    torch.testing.assert_close(backbone.eval()(x), published(x[:, :3]))


BACKBONES = [
    ("small_cnn", "timm"),
    ("resnet18", "timm"),
    ("resnet18", "3x3"),
    (ATTO, "timm"),
    ("efficientnet_b0", "timm"),
    ("tf_efficientnetv2_s", "timm"),
]


def untrained(name: str, stem: str, channels: int, **changes: object) -> torch.nn.Module:
    torch.manual_seed(4)
    settings = ModelSettings.model_validate({"backbone": name, "stem": stem, "pretrained": False, **changes})
    return create_backbone(settings, channels)[0].eval()


@pytest.mark.parametrize("channels", [3, 6, 9])
@pytest.mark.parametrize(("name", "stem"), BACKBONES)
def test_any_network_takes_any_number_of_channels_and_learns_from_each(name: str, stem: str, channels: int) -> None:
    backbone = untrained(name, stem, channels, init="kaiming")
    features = backbone(torch.randn(2, channels, 32, 32))
    assert features.shape == (2, backbone.num_features)
    features.square().sum().backward()
    weight = first_layer(backbone)
    assert weight.shape[1] == channels
    assert weight.grad is not None
    assert bool((weight.grad.abs().sum((0, 2, 3)) > 0).all())


@pytest.mark.parametrize(("name", "stem"), BACKBONES[1:])
def test_copy_or_zero_begins_as_the_three_channel_network(name: str, stem: str) -> None:
    x = torch.randn(1, 9, 64, 64)
    three, nine = untrained(name, stem, 3), untrained(name, stem, 9)
    assert not first_layer(nine)[:, 3:].any()
    with torch.no_grad():
        torch.testing.assert_close(nine(x), three(x[:, :3]), atol=1e-5, rtol=1e-4)


def test_a_3x3_stem_keeps_every_pixel_and_all_other_published_weights(tmp_path: Path) -> None:
    published = timm.create_model("resnet18").state_dict()
    path = tmp_path / "resnet18.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in published.items()}, path)
    settings = ModelSettings(backbone="resnet18", stem="3x3", checkpoint_path=str(path))
    backbone = create_backbone(settings, 6)[0].eval()
    assert backbone.conv1.weight.shape == (64, 6, 3, 3)
    sizes = []
    backbone.layer1.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[-2:]))
    backbone(torch.randn(2, 6, 64, 64))
    assert sizes == [(64, 64)]
    own = backbone.state_dict()
    assert all(torch.equal(own[name], published[name]) for name in own if name != "conv1.weight")


@pytest.mark.parametrize("name", [ATTO, "efficientnet_b0", "small_cnn"])
def test_a_3x3_stem_for_other_networks_than_resnets_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="stem"):
        create_backbone(ModelSettings(backbone=name, stem="3x3", pretrained=False), 6)


def test_a_convnext_without_its_head_norm_gives_the_pooled_features(atto_weights: Path) -> None:
    settings = ModelSettings(backbone=ATTO, checkpoint_path=str(atto_weights), head_norm=False)
    bare, _ = create_backbone(settings, 6)
    whole, _ = create_backbone(settings.model_copy(update={"head_norm": True}), 6)
    x = torch.randn(2, 6, 32, 32)
    pooled = bare(x)
    torch.testing.assert_close(pooled, bare.forward_features(x).mean((2, 3)))
    normed = torch.nn.functional.layer_norm(pooled, pooled.shape[1:], eps=1e-6)
    torch.testing.assert_close(whole(x), normed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "small_cnn"])
def test_a_network_without_a_head_norm_cannot_lose_it(name: str) -> None:
    with pytest.raises(ConfigError, match="head_norm"):
        create_backbone(ModelSettings(backbone=name, head_norm=False, pretrained=False), 6)


def timm_state(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_kaiming_draws_the_further_channels_and_keeps_trained_ones(atto_weights: Path) -> None:
    settings = ModelSettings(backbone=ATTO, checkpoint_path=str(atto_weights), init="kaiming")
    weight = first_layer(create_backbone(settings, 6)[0])
    torch.testing.assert_close(weight[:, :3], timm_state(atto_weights)["stem.0.weight"])
    fan_in = weight[0].numel()
    assert weight[:, 3:].std().item() == pytest.approx(fan_in**-0.5, rel=0.15)


def test_a_three_channel_backbone_is_left_alone(atto_weights: Path) -> None:
    settings = ModelSettings(backbone=ATTO, checkpoint_path=str(atto_weights))
    weight = first_layer(create_backbone(settings, 3)[0])
    torch.testing.assert_close(weight, timm_state(atto_weights)["stem.0.weight"])


def test_pretrained_without_a_network_fails_at_once_and_names_checkpoint_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("requests.head", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("tried to download"))
    with pytest.raises(ConfigError, match="checkpoint_path"):
        create_backbone(ModelSettings(backbone=ATTO, pretrained=True), 6)


def test_pretrained_weights_in_the_cache_are_used(atto_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(atto_weights))
    weight = first_layer(create_backbone(ModelSettings(backbone=ATTO, pretrained=True), 6)[0])
    torch.testing.assert_close(weight[:, :3], timm_state(atto_weights)["stem.0.weight"])


class _Payload:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.witness), "w"))


@pytest.mark.parametrize("writer", ["pickle", "torch.save"])
def test_a_pickle_as_weights_is_refused_and_does_nothing(tmp_path: Path, writer: str) -> None:
    path, witness = tmp_path / "weights.safetensors", tmp_path / "witness"
    payload = {"stem.0.weight": _Payload(witness)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path)
    with pytest.raises(BadInputError, match="is a pickle"):
        create_backbone(ModelSettings(backbone=ATTO, checkpoint_path=str(path)), 6)
    assert not witness.exists()


def test_weights_of_another_network_are_refused(atto_weights: Path) -> None:
    with pytest.raises(BadInputError, match="another network"):
        create_backbone(ModelSettings(backbone="convnext_femto", checkpoint_path=str(atto_weights)), 6)


def test_truncated_weights_are_refused(atto_weights: Path) -> None:
    atto_weights.write_bytes(atto_weights.read_bytes()[:-10])
    with pytest.raises(BadInputError, match="not a whole safetensors file"):
        create_backbone(ModelSettings(backbone=ATTO, checkpoint_path=str(atto_weights)), 6)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="small_cnn"):
        create_backbone(ModelSettings(backbone="no_such_network"), 6)


def test_pretrained_small_networks_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="pretrained to false"):
        create_backbone(ModelSettings(backbone="small_cnn", pretrained=True), 6)
