"""The contract that every network keeps."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from tailmatch.lightning_modules.networks import (
    CifarResNet,
    EfficientNet,
    Network,
    NetworkFactory,
    TimmNetwork,
    TorchvisionNetwork,
    WideResNet,
)
from tailmatch.lightning_modules.networks.network import DropoutLinear, NormalizedLinear

SMALL: dict[str, tuple[Callable[..., Network], dict[str, Any], int, int]] = {
    "wide_resnet": (WideResNet, {"depth": 10, "widen": 1}, 16, 64),
    "cifar_resnet": (CifarResNet, {"depth": 8}, 16, 64),
    "efficientnet": (EfficientNet, {"drop_connect": 0.0}, 64, 1280),
    "torchvision": (TorchvisionNetwork, {"name": "resnet18"}, 64, 512),
    "timm": (TimmNetwork, {"name": "test_resnet"}, 64, 96),
    "timm transformer": (TimmNetwork, {"name": "test_vit"}, 64, 64),
}
every_network = pytest.mark.parametrize("which", SMALL)


def build(which: str, num_classes: int = 5, **kwargs: Any) -> Network:
    cls, defaults, _, _ = SMALL[which]
    torch.manual_seed(0)
    return cls(num_classes, **{**defaults, **kwargs})


def images(which: str, batch: int = 2) -> Tensor:
    size = SMALL[which][2]
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


class Pool(Network):
    """The least network: its features are the mean of each normalized channel."""

    def __init__(self, num_classes: int = 2, **kwargs: Any) -> None:
        super().__init__(num_classes, 3, **kwargs)
        self._finish()

    def _features(self, normalized: Tensor) -> Tensor:
        return normalized.mean(dim=(2, 3))


@every_network
def test_a_cosine_scale_makes_logits_of_scaled_cosines(which: str) -> None:
    network = build(which, cosine_scale=30.0).eval()
    with torch.no_grad():
        features, logits = network.features(images(which)), network(images(which))
    assert isinstance(network.head, NormalizedLinear)
    torch.testing.assert_close(network.head.weight.norm(dim=1), torch.ones(5))
    cosine = features @ network.head.weight.T / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(logits, 30 * cosine, rtol=1e-4, atol=1e-4)


def test_a_normalized_head_depends_on_directions_alone() -> None:
    head = NormalizedLinear(4, 3, scale=7.0)
    features = torch.randn(5, 4)
    before = head(features)
    assert before.abs().max() <= 7.0
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[0.1], [2.0], [30.0]]))
    torch.testing.assert_close(head(5 * features), before)


def test_a_normalized_head_is_exact_under_autocast() -> None:
    head, features = NormalizedLinear(4, 3, scale=30.0), torch.randn(5, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert torch.equal(logits, head(features.float()))


def test_dropout_of_a_normalized_head_is_that_of_training() -> None:
    head = NormalizedLinear(64, 3, scale=7.0, dropout=0.5)
    features = torch.ones(2, 64)
    torch.manual_seed(0)
    dropped = nn.functional.dropout(features, 0.5)
    torch.manual_seed(0)
    trained = head(features)
    torch.testing.assert_close(trained, head.eval()(dropped))
    assert not torch.equal(trained, head(features))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_cosine_scale_is_checked(scale: float) -> None:
    with pytest.raises(ValueError, match=r"cosine_scale is .*; it must be above 0, or null"):
        Pool(cosine_scale=scale)


@every_network
def test_shapes_and_forward_is_head_of_features(which: str) -> None:
    network = build(which).eval()
    with torch.no_grad():
        features, logits = network.features(images(which)), network(images(which))
    assert features.shape == (2, SMALL[which][3]) == (2, network.feature_dim)
    assert logits.shape == (2, 5)
    assert isinstance(network.head, nn.Linear)
    torch.testing.assert_close(network.head(features), logits)


@every_network
def test_every_parameter_gets_a_gradient(which: str) -> None:
    network = build(which)
    network(images(which)).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.requires_grad for parameter in network.parameters())


@every_network
def test_channels_last_gives_the_same_logits(which: str) -> None:
    fast, plain = build(which), build(which, channels_last=False)
    plain.load_state_dict(fast.state_dict())
    convolutions = [module for module in fast.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)
    assert all(module.weight.is_contiguous() for module in plain.modules() if isinstance(module, nn.Conv2d))
    assert fast.normalize(images(which)).is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        logits, expected = fast.eval()(images(which)), plain.eval()(images(which))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@every_network
def test_state_dict_round_trip_carries_the_normalization(which: str) -> None:
    network = build(which).eval()
    network.adapt_normalization([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    torch.manual_seed(7)
    other = SMALL[which][0](5, **SMALL[which][1]).eval()
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other.mean.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    torch.testing.assert_close(other.std.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    with torch.no_grad():
        assert torch.equal(other(images(which)), network(images(which)))


def test_a_whole_network_can_be_written_and_copied(tmp_path: Path) -> None:
    network = build("cifar_resnet").eval()
    torch.save(network, tmp_path / "whole.pt")
    for other in (torch.load(tmp_path / "whole.pt", weights_only=False), copy.deepcopy(network)):
        with torch.no_grad():
            assert torch.equal(other(images("cifar_resnet")), network(images("cifar_resnet")))


@every_network
def test_given_normalization_is_fixed(which: str) -> None:
    network = build(which, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    network.adapt_normalization([0.9, 0.9, 0.9], [0.9, 0.9, 0.9])
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(network.std.flatten(), torch.tensor([0.5, 0.6, 0.7]))


def test_normalization_is_identity_until_adapted() -> None:
    network = Pool()
    x = images("wide_resnet")
    assert torch.equal(network.normalize(x), x)
    network.adapt_normalization([0.5, 0.25, 0.0], [0.5, 0.25, 1.0])
    pixel = torch.tensor([1.0, 0.5, 0.75]).view(1, 3, 1, 1)
    # (1 - 0.5) / 0.5, (0.5 - 0.25) / 0.25, (0.75 - 0) / 1
    assert network.normalize(pixel).flatten().tolist() == [1.0, 1.0, 0.75]
    assert network.features(pixel).tolist() == [[1.0, 1.0, 0.75]]


def test_dropout_acts_before_the_head_in_training_only() -> None:
    head = DropoutLinear(1000, 1, dropout=0.5)
    nn.init.ones_(head.weight)
    nn.init.zeros_(head.bias)
    torch.manual_seed(0)
    kept = head(torch.ones(1, 1000)).item() / 2  # survivors are scaled by 1 / (1 - 0.5)
    assert 400 < kept < 600
    assert head.eval()(torch.ones(1, 1000)).item() == pytest.approx(1000)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": 1}, "num_classes is 1; it must be at least 2"),
        ({"mean": [0.5] * 3}, r"mean is \[0.5, 0.5, 0.5\] and std is None; give both or neither"),
        ({"mean": [0.5], "std": [0.5] * 3}, r"mean is \[0.5\]; it must be 3 numbers"),
        ({"mean": [0.5] * 3, "std": [0.5] * 4}, r"std is .*; it must be 3 numbers"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}, r"std\[1\] is 0.0; it must be in \(0, 1\]"),
        ({"mean": [0.5, float("nan"), 0.5], "std": [0.5] * 3}, r"mean\[1\] is nan; it must be in \[0, 1\]"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pool(**kwargs)


def test_bad_arguments_of_adapt_and_normalize() -> None:
    network = Pool()
    with pytest.raises(ValueError, match=r"std\[0\] is -1.0; it must be in"):
        network.adapt_normalization([0.5] * 3, [-1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"images are \[2, 1, 8, 8\]; they must be \[B, 3, H, W\]"):
        network.normalize(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match="images are torch.uint8; they must be floating point .* divide by 255"):
        network.normalize(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_base_needs_features() -> None:
    with pytest.raises(NotImplementedError, match="Network must implement _features"):
        Network(2, 3)(torch.rand(1, 3, 4, 4))


class Method:
    """Stands for a method that receives its network's factory from YAML."""

    def __init__(self, network: NetworkFactory) -> None:
        self.network = network(7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("cls", "arguments", "head_dropout"),
    [
        ("WideResNet", {"depth": 10, "dropout": 0.25, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}, 0.25),
        ("CifarResNet", {"depth": 8, "mean": None, "std": None, "channels_last": False}, 0.0),
        ("EfficientNet", {"name": "b0", "pretrained": False, "dropout": None}, 0.2),
        ("TorchvisionNetwork", {"name": "resnet18", "weights": None}, 0.0),
        ("TorchvisionNetwork", {"name": "resnet18", "mean": [0.5] * 3, "std": [0.5] * 3}, 0.0),
        ("TimmNetwork", {"name": "test_vit", "image_size": 32, "dropout": 0.25}, 0.25),
    ],
)
def test_yaml_gives_a_factory(cls: str, arguments: dict[str, Any], head_dropout: float) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Method, "method")
    config = {"class_path": f"tailmatch.lightning_modules.networks.{cls}", "init_args": arguments}
    parsed = parser.parse_object({"method": {"network": config}})
    again = parser.parse_string(parser.dump(parsed, skip_unset=False))  # as a run's saved config.yaml
    assert again.method.network.init_args == parsed.method.network.init_args
    network = parser.instantiate_classes(again).method.network
    assert type(network).__name__ == cls
    assert network.head.out_features == 7
    assert network.head.dropout == head_dropout
    expected_mean = arguments.get("mean") or [0.0, 0.0, 0.0]
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(expected_mean))
    assert (network.memory_format == torch.channels_last) == arguments.get("channels_last", True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("value", "kind"), [("true", "True"), ("missing.pth", "'missing.pth'")])
def test_pretrained_from_yaml_keeps_its_type(value: str, kind: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Method, "method")
    path = "tailmatch.lightning_modules.networks.EfficientNet"
    text = f"method: {{network: {{class_path: {path}, init_args: {{pretrained: {value}}}}}}}"
    assert repr(parser.parse_string(text).method.network.init_args.pretrained) == kind
