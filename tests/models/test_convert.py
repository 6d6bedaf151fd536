"""Checkpoints of the earlier pipeline: the same logits after conversion, each layout, and nothing is run on the way."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.models.convert import main
from dark_halo_scope.models.legacy import read_checkpoint
from dark_halo_scope.models.weights import load_model

SIZE = 64
# In the units that the earlier pipeline gave its networks: far outside of what standardised metadata may be.
META = torch.tensor([[1.31, 23.9], [1.18, 24.6], [1.45, 22.1], [1.31, 26.9]])
COLUMNS = ("psfsize_r", "psfdepth_r")


class Fusion(nn.Module):
    """The earlier pipeline's head: metadata in their own units through an MLP, beside the image's features."""

    def __init__(self, features: int, hidden: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.meta_mlp = nn.Sequential(
            nn.Linear(2, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.classifier = nn.Sequential(
            nn.Linear(features + hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )


class Wrapped(nn.Module):
    """A backbone that lost its classifier, and a head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x_BCHW: torch.Tensor, meta_BM: torch.Tensor | None = None) -> torch.Tensor:
        features_BF = self.backbone(x_BCHW).flatten(1)
        if meta_BM is None:
            return self.head(features_BF)
        assert isinstance(self.head, Fusion)
        return self.head.classifier(torch.cat([features_BF, self.head.meta_mlp(meta_BM)], dim=1))


def resnet(stem: int = 7, build: Callable[..., Any] = torchvision.models.resnet18) -> Any:
    model = build(num_classes=1)
    if stem == 3:
        model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    return model


def resnet6() -> Any:
    model = resnet()
    model.conv1 = nn.Conv2d(6, 64, 7, 2, 3, bias=False)
    return model


def convnext(channels: int = 3) -> Any:
    model = torchvision.models.convnext_tiny(num_classes=1)
    if channels != 3:
        model.features[0][0] = nn.Conv2d(channels, 96, 4, 4)
    return model


def without_classifier(model: Any, name: str) -> Any:
    setattr(model, name, nn.Identity())
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": resnet,
    "resnet18 with a 3x3 stem": lambda: resnet(3),
    "resnet34": lambda: resnet(build=torchvision.models.resnet34),
    "convnext_tiny": convnext,
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(num_classes=1),
    "wrapped resnet18": lambda: Wrapped(
        without_classifier(resnet(3), "fc"), nn.Sequential(nn.Dropout(0.1), nn.Linear(512, 1))
    ),
    "wrapped convnext_tiny": lambda: Wrapped(
        without_classifier(convnext(), "classifier"), nn.Sequential(nn.Dropout(0.1), nn.Linear(768, 1))
    ),
    "LensFinder6CH": lambda: Wrapped(without_classifier(convnext(6), "classifier"), Fusion(768)),
    "efficientnet_b0 with metadata": lambda: Wrapped(
        without_classifier(torchvision.models.efficientnet_b0(), "classifier"), Fusion(1280)
    ),
}


def images(channels: int) -> torch.Tensor:
    """Four images that differ in more than their noise; the last is the first again."""
    x_BCHW = torch.randn(3, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    x_BCHW = x_BCHW * torch.tensor([0.5, 0.8, 1.1])[:, None, None, None]
    return torch.cat([x_BCHW, x_BCHW[:1]])


def trained(model: nn.Module, channels: int = 3, seed: int = 3) -> nn.Module:
    """Every tensor away from where networks begin: norms that do something, blocks that are not scaled to nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        noise = torch.rand(tensor.shape, generator=generator)
        if name.endswith("layer_scale"):
            tensor.copy_(0.1 + 0.2 * noise)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(0.5 + noise if name.endswith("weight") else 0.2 * (noise - 0.5))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        # Statistics of what really passes, so that no layer shuts what comes before it out of the logit.
        backbone = model.backbone if isinstance(model, Wrapped) else model
        with torch.no_grad():
            backbone.train()(images(channels))
    return model.eval()


def settings(meta: tuple[str, ...] = (), residual: bool = False, **changes: object) -> str:
    values = {"stamp_size": SIZE, "meta_columns": list(meta), "preprocessing": {"residual": residual}, **changes}
    return json.dumps(values)


SMALL_STEM = {"stem_stride": 1, "stem_pool": False}


def converted(checkpoint: Path, given: str) -> Path:
    output = checkpoint.parent / "main" / "best.json"
    main(["--checkpoint", str(checkpoint), "--output", str(output), "--settings", given, "--generation", "gen2"])
    return output


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """A resnet18 away from its beginning, which no test may change."""
    torch.manual_seed(0)
    return trained(resnet())


@pytest.fixture(scope="module")
def small_stem() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return resnet(3).state_dict()


@pytest.fixture(scope="module")
def fused() -> dict[str, torch.Tensor]:
    return NETWORKS["LensFinder6CH"]().state_dict()


@pytest.fixture
def state(plain: nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors in a dictionary that a test may change; the tensors themselves it may not."""
    return dict(plain.state_dict())


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    def save(value: Any) -> Path:
        path = tmp_path / "ckpt_best.pt"
        torch.save(value, path)
        return path

    return save


# Layouts whose backbone and head are each tested with others too.
SECOND_LINE = ("resnet34", "wrapped convnext_tiny", "efficientnet_b0 with metadata")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SECOND_LINE else ()) for name in NETWORKS]
)
@torch.inference_mode()
def test_a_converted_network_gives_the_same_logits(name: str, saved: Callable[[Any], Path]) -> None:
    meta = COLUMNS if name in ("LensFinder6CH", "efficientnet_b0 with metadata") else ()
    channels = 6 if name == "LensFinder6CH" else 3
    torch.manual_seed(0)
    original = trained(NETWORKS[name](), channels)
    x = images(channels)
    expected = (original(x, META) if meta else original(x)).squeeze(1)
    # A network to which all images or metadata are the same would prove nothing.
    assert expected[:3].std() > 0.01
    if meta:
        assert abs(expected[0] - expected[3]) > 1e-3
    stem = SMALL_STEM if name in ("resnet18 with a 3x3 stem", "wrapped resnet18") else {}
    path = saved({"model": original.state_dict()})
    model, preprocess, _ = load_model(converted(path, settings(meta, residual=channels == 6, **stem)))
    assert preprocess.channels == channels
    torch.testing.assert_close(model(x, META if meta else torch.empty(4, 0)), expected, atol=1e-4, rtol=1e-4)


WRAPPERS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 6},
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 6},
    "state_dict": lambda state: {"state_dict": state},
    "DDP": lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    "compiled": lambda state: {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
    "compiled DDP": lambda state: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_dict_is_found_wherever_it_lies(
    wrapper: str, state: dict[str, torch.Tensor], saved: Callable[[Any], Path]
) -> None:
    model, _, _ = load_model(converted(saved(WRAPPERS[wrapper](state)), settings()))
    torch.testing.assert_close(
        model.backbone.state_dict()["layer3.1.bn2.running_var"], state["layer3.1.bn2.running_var"]
    )


def test_a_whole_checkpoint_of_training_is_read_with_its_numpy_numbers(
    plain: nn.Module, saved: Callable[[Any], Path]
) -> None:
    # Of two parameters: the optimiser's own numbers are what matters here.
    own = list(plain.parameters())[-2:]
    optimizer = torch.optim.AdamW(own)
    sum(parameter.sum() for parameter in own).backward()
    before = copy.deepcopy(plain.state_dict())
    optimizer.step()
    plain.load_state_dict(before)
    plain.zero_grad()
    whole = {
        "epoch": 6,
        "val_auc": np.float64(0.9906),
        "model": plain.state_dict(),
        "optimizer": optimizer.state_dict(),
        "config": {"arch": "resnet18", "lr": 3e-4},
    }
    best = json.loads(converted(saved(whole), settings()).read_text())
    assert best["converted_from"]["recorded"] == {"epoch": 6, "val_auc": 0.9906}
    assert best["converted_from"]["layout"] == "plain"
    assert (best["generation"], best["stage"]) == ("gen2", "main")


def test_half_precision_weights_become_full_ones(state: dict[str, torch.Tensor], saved: Callable[[Any], Path]) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    model, _, _ = load_model(converted(saved(halves), settings()))
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.backbone.state_dict()["conv1.weight"], halves["conv1.weight"].float())


NUMBERS = [
    *(np.float64(0.1), np.float32(0.1), np.float16(0.1), np.int64(-7), np.int32(7), np.uint8(200), np.bool_(True)),
    np.array([2.5], ">f8").view(np.dtype(">f8"))[0],
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.dtype.name)
def test_numpy_numbers_are_read_as_numpy_reads_them(number: Any, saved: Callable[[Any], Path]) -> None:
    found = read_checkpoint(saved({"number": number}))["number"]
    assert found == number.item()
    assert type(found) is type(number.item())


class Forged:
    """A NumPy number whose type is not what NumPy would write: other flags, another name, another length."""

    def __init__(self, name: str = "f8", order: str = "<", flags: int = 0, raw: bytes = b"\0" * 8) -> None:
        self.name, self.order, self.flags, self.raw = name, order, flags, raw

    def __reduce__(self) -> tuple[object, tuple[object, object]]:
        return (np.float64(0).__reduce__()[0], (ForgedType(self.name, self.order, self.flags), self.raw))


class ForgedType:
    def __init__(self, name: str, order: str, flags: int) -> None:
        self.name, self.state = name, (3, order, None, None, None, -1, -1, flags)

    def __reduce__(self) -> tuple[object, tuple[object, ...], tuple[object, ...]]:
        return (np.dtype, (self.name, False, True), self.state)


def test_flags_that_make_numpy_read_other_memory_do_nothing(saved: Callable[[Any], Path]) -> None:
    raw = np.float64(0.25).tobytes()
    # All flags, of which NPY_ITEM_IS_POINTER (2) and NPY_LIST_PICKLE (4) make NumPy take the object for the number.
    assert read_checkpoint(saved({"number": Forged(flags=63, raw=raw)})) == {"number": 0.25}


@pytest.mark.parametrize(
    "forged",
    [Forged("O8"), Forged("V8"), Forged("M8"), Forged(order="="), Forged(raw=b"\0" * 4), Forged("f4")],
    ids=["object", "void", "date", "byte order", "too short", "too long"],
)
def test_what_only_looks_like_a_numpy_number_is_refused(forged: Forged, saved: Callable[[Any], Path]) -> None:
    with pytest.raises(BadInputError, match=r"ckpt_best\.pt"):
        read_checkpoint(saved({"number": forged}))


class Payload:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.witness), "w"))


@pytest.mark.parametrize("place", ["beside the weights", "as weights", "as a bare pickle"])
def test_a_pickle_with_code_is_refused_and_does_nothing(place: str, tmp_path: Path) -> None:
    path, witness = tmp_path / "ckpt_best.pt", tmp_path / "witness"
    payload = Payload(witness)
    if place == "as a bare pickle":
        path.write_bytes(pickle.dumps({"model": payload}))
    elif place == "as weights":
        torch.save({"model": payload}, path)
    else:
        torch.save({"model": {"fc.weight": torch.zeros(1, 2)}, "config": payload}, path)
    with pytest.raises(BadInputError, match=r"(?s)ckpt_best\.pt.*(would run|read safely)"):
        converted(path, settings())
    assert not witness.exists()
    assert not (tmp_path / "main").exists()


def test_a_refused_pickle_is_told_by_what_it_would_run(tmp_path: Path) -> None:
    path = tmp_path / "ckpt_best.pt"
    torch.save({"model": Payload(tmp_path / "witness")}, path)
    with pytest.raises(BadInputError, match=r"would run \S*open "):
        converted(path, settings())


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(keep: float, saved: Callable[[Any], Path]) -> None:
    path = saved({"fc.weight": torch.zeros(1, 512)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(BadInputError, match=r"ckpt_best\.pt"):
        converted(path, settings())


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"absent\.pt"):
        converted(tmp_path / "absent.pt", settings())


@pytest.mark.parametrize("state", [{"stem.0.weight": torch.zeros(4, 3, 2, 2)}, {"epoch": 3}, [1, 2]])
def test_an_unknown_layout_is_told_by_what_was_looked_for(state: Any, saved: Callable[[Any], Path]) -> None:
    with pytest.raises(BadInputError, match="looked for"):
        converted(saved(state), settings())


def test_a_network_of_more_than_one_class_is_refused(saved: Callable[[Any], Path]) -> None:
    with pytest.raises(BadInputError, match="one-logit"):
        converted(saved(torchvision.models.resnet18(num_classes=2).state_dict()), settings())


def test_tensors_that_no_layout_has_are_refused(state: dict[str, torch.Tensor], saved: Callable[[Any], Path]) -> None:
    with pytest.raises(BadInputError, match=r"attention\.weight"):
        converted(saved({**state, "attention.weight": torch.zeros(3)}), settings())


def test_a_network_of_another_size_is_refused(saved: Callable[[Any], Path]) -> None:
    shallow = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1)
    with pytest.raises(BadInputError, match="none of resnet18, resnet34"):
        converted(saved(shallow.state_dict()), settings())


def test_a_network_that_only_looks_like_a_known_one_is_refused(saved: Callable[[Any], Path]) -> None:
    bottlenecks = ResNet(Bottleneck, [2, 2, 2, 2], num_classes=1)
    with pytest.raises(BadInputError, match="not the resnet18"):
        converted(saved(bottlenecks.state_dict()), settings())


def test_a_missing_tensor_is_named(state: dict[str, torch.Tensor], saved: Callable[[Any], Path]) -> None:
    del state["layer2.0.bn1.running_mean"]
    with pytest.raises(BadInputError, match=r"layer2\.0\.bn1\.running_mean"):
        converted(saved(state), settings())


def test_weights_that_are_not_finite_are_refused(state: dict[str, torch.Tensor], saved: Callable[[Any], Path]) -> None:
    state["fc.bias"] = torch.full((1,), float("nan"))
    with pytest.raises(BadInputError, match=r"not finite \(fc\.bias\)"):
        converted(saved(state), settings())


@pytest.mark.parametrize("missing", ["stamp_size", "preprocessing", "meta_columns"])
def test_what_a_checkpoint_does_not_say_must_be_given(missing: str, saved: Callable[[Any], Path]) -> None:
    given = json.loads(settings())
    del given[missing]
    with pytest.raises(ConfigError, match=missing):
        converted(saved({}), json.dumps(given))


@pytest.mark.parametrize("given", [{}, {"stem_stride": 1}, {"stem_pool": False}])
def test_what_a_small_stem_is_followed_by_must_be_given(
    given: dict[str, Any], small_stem: dict[str, torch.Tensor], saved: Callable[[Any], Path]
) -> None:
    with pytest.raises(ConfigError, match="say stem_stride and stem_pool"):
        converted(saved(small_stem), settings(**given))


@pytest.mark.parametrize(("stride", "pool"), [(2, False), (1, True), (2, True)])
def test_a_small_stem_that_cannot_be_built_is_refused(
    stride: int, pool: bool, small_stem: dict[str, torch.Tensor], saved: Callable[[Any], Path]
) -> None:
    with pytest.raises(ConfigError, match=f"stride {stride} {'with' if pool else 'without'} pooling, which is not"):
        converted(saved(small_stem), settings(stem_stride=stride, stem_pool=pool))


def test_a_small_stem_is_not_said_of_another(state: dict[str, torch.Tensor], saved: Callable[[Any], Path]) -> None:
    with pytest.raises(ConfigError, match="has no 3x3 stem"):
        converted(saved(state), settings(**SMALL_STEM))


def test_preprocessing_of_other_channels_is_refused(
    state: dict[str, torch.Tensor], saved: Callable[[Any], Path]
) -> None:
    with pytest.raises(ConfigError, match="takes 3 channels and this preprocessing makes 6"):
        converted(saved(state), settings(residual=True))


def test_a_control_source_that_learns_from_controls_cannot_be_had(saved: Callable[[Any], Path]) -> None:
    paired = {"residual": False, "control_source": "matched_lrg"}
    with pytest.raises(ConfigError, match="library of controls"):
        converted(saved(resnet6().state_dict()), settings(preprocessing=paired))


def test_metadata_columns_must_fit_the_branch(state: dict[str, torch.Tensor], saved: Callable[[Any], Path]) -> None:
    with pytest.raises(BadInputError, match="0 metadata columns"):
        converted(saved(state), settings(COLUMNS))


@pytest.mark.parametrize("recorded", ["psfsize_r,psfdepth_r", ["psfsize_r", "psfdepth_r"]])
def test_metadata_columns_in_another_order_than_recorded_are_refused(
    recorded: Any, fused: dict[str, torch.Tensor], saved: Callable[[Any], Path]
) -> None:
    path = saved({"model": fused, "args": {"meta_cols": recorded}})
    with pytest.raises(ConfigError, match="psfsize_r, psfdepth_r"):
        converted(path, settings(("psfdepth_r", "psfsize_r"), residual=True))
