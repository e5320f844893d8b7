"""EfficientNet and TorchvisionNetwork: sizes, and weights from files and from the network."""

import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import efficientnet_pytorch
import pytest
import torch
import torchvision
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.networks import EfficientNet, Network, TorchvisionNetwork
from tailmatch.lightning_modules.networks.torchvision_network import _densenet_key

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])


def count(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def images(size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def original() -> nn.Module:
    torch.manual_seed(3)
    return efficientnet_pytorch.EfficientNet.from_name("efficientnet-b0", image_size=64).eval()


@pytest.fixture
def resnet18() -> nn.Module:
    torch.manual_seed(3)
    return torchvision.models.resnet18().eval()


def offline(url: str, **kwargs: Any) -> None:
    raise URLError("no network")


def test_parameter_counts() -> None:
    assert count(EfficientNet(1000)) == 5_288_548  # 5.3 M, arXiv 1905.11946 table 2
    assert count(TorchvisionNetwork(1000, "resnet18")) == 11_689_512
    with torch.device("meta"):
        assert count(TorchvisionNetwork(1000)) == 25_557_032  # resnet50


def test_efficientnet_from_a_file_equals_the_original(original: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "b0.pth"
    torch.save(original.state_dict(), path)
    network = EfficientNet(10, pretrained=str(path)).eval()
    torch.testing.assert_close(network.mean.flatten(), IMAGENET_MEAN)
    torch.testing.assert_close(network.std.flatten(), IMAGENET_STD)
    network.adapt_normalization([0.5] * 3, [0.5] * 3)
    torch.testing.assert_close(network.mean.flatten(), IMAGENET_MEAN)
    with torch.no_grad():
        expected = original.extract_features(network.normalize(images())).mean(dim=(2, 3))
        torch.testing.assert_close(network.features(images()), expected, rtol=1e-4, atol=1e-6)


def test_efficientnet_takes_any_size_and_rate() -> None:
    network = EfficientNet(3, name="b2", drop_connect=0.5)
    assert network.head.dropout == 0.3  # the original's table
    assert network(images(33)).shape == (2, 3)
    assert EfficientNet(3, dropout=0.0).head.dropout == 0.0


def test_torchvision_from_a_file_equals_the_original(resnet18: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    network = TorchvisionNetwork(10, "resnet18", weights=str(path)).eval()
    torch.testing.assert_close(network.mean.flatten(), IMAGENET_MEAN)
    assert network.normalization_is_fixed
    resnet18.fc = nn.Identity()
    with torch.no_grad():
        expected = resnet18(network.normalize(images()))
        torch.testing.assert_close(network.features(images()), expected)
    own = TorchvisionNetwork(10, "resnet18", weights=str(path), mean=[0.1] * 3, std=[0.2] * 3)
    torch.testing.assert_close(own.mean.flatten(), torch.full((3,), 0.1))


def test_weights_by_name_are_downloaded(resnet18: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(url: str, **kwargs: Any) -> dict[str, Tensor]:
        asked.update(kwargs, url=url)
        state: dict[str, Tensor] = resnet18.state_dict()
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    network = TorchvisionNetwork(10, "resnet18", weights="IMAGENET1K_V1")
    assert asked["url"].endswith("resnet18-f37072fd.pth")
    assert asked["weights_only"] is True and asked["check_hash"] is True
    assert torch.equal(network.backbone.conv1.weight, resnet18.conv1.weight)
    assert network.normalization_is_fixed


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    where = str(tmp_path / "checkpoints" / "efficientnet-b0-")
    with pytest.raises(ValueError, match=f"https://.*no network.*{where}.*path of a local copy"):
        EfficientNet(10, pretrained=True)
    with pytest.raises(ValueError, match="https://.*resnet18-.*no network.*path of a local copy"):
        TorchvisionNetwork(10, "resnet18", weights="DEFAULT")


def test_a_damaged_copy_of_published_weights_is_named(
    resnet18: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    copy = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    torch.save(resnet18.state_dict(), copy)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(SettingsError, match="resnet18-f37072fd.pth is damaged: the CRC-32 of data/"):
        TorchvisionNetwork(10, "resnet18", weights="DEFAULT")


def test_weights_that_do_not_fit(original: nn.Module, tmp_path: Path) -> None:
    state = original.state_dict()
    stem = state.pop("_conv_stem.weight")
    state["other.weight"] = stem
    state["_bn0.weight"] = torch.ones(7)
    path = tmp_path / "b0.pth"
    torch.save(state, path)
    with pytest.raises(ValueError) as error:
        EfficientNet(10, pretrained=str(path))
    message = str(error.value)
    assert str(path) in message
    assert "1 missing: _conv_stem.weight" in message
    assert "1 unexpected: other.weight" in message
    assert "_bn0.weight [7] instead of [32]" in message


class Executes:
    """Pickles to a call, as a malicious file would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_is_never_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "bad.pth", tmp_path / "executed"
    torch.save({"weight": Executes(trace)}, path)
    with pytest.raises(ValueError, match="bad.pth.*cannot be read as a state dict"):
        EfficientNet(10, pretrained=str(path))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "hold a list; they must hold a dict of tensors"),
        ({"epoch": 3}, r"hold \['epoch'\], no tensors; they must hold tensors alone"),
    ],
)
def test_a_file_with_something_else(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        EfficientNet(10, pretrained=str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'missing.pth' does not exist"):
        EfficientNet(10, pretrained="missing.pth")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/best.ckpt").touch()
    with pytest.raises(
        SettingsError, match=r"run' is a folder: give a file in it, such as .*run/checkpoints/best\.ckpt$"
    ):
        EfficientNet(10, pretrained=str(tmp_path / "run"))
    for content in ("not weights", "hello", ""):  # torch raises another error for each
        (tmp_path / "text.pth").write_text(content)
        with pytest.raises(SettingsError, match="text.pth is (not a file of torch.save|empty)"):
            TorchvisionNetwork(10, "resnet18", weights=str(tmp_path / "text.pth"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "resnet51"}, "'resnet51' is no classifier of torchvision; did you mean .*resnet50"),
        ({"name": "squeezenet1_1"}, "'squeezenet1_1': the last layer is Conv2d, not Linear"),
        ({"name": "resnet18", "weights": "V9"}, "'V9' are neither a file .* for resnet18: IMAGENET1K_V1"),
    ],
)
def test_bad_arguments_torchvision(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchvisionNetwork(10, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "b9"}, "name is 'b9'; it must be one of b0, "),
        ({"name": "l2", "pretrained": True}, "no weights are published for 'l2'"),
        ({"drop_connect": 1.5}, r"drop_connect is 1.5; it must be in \[0, 1\)"),
    ],
)
def test_bad_arguments_efficientnet(kwargs: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        EfficientNet(10, **kwargs)


def test_googlenet_has_no_auxiliary_logits() -> None:
    network = TorchvisionNetwork(4, "googlenet")
    assert network.train()(images()).shape == (2, 4)
    assert not network.backbone.transform_input


def test_densenet_keys_of_published_weights() -> None:
    assert (
        _densenet_key("features.denseblock1.denselayer12.norm.1.weight")
        == "features.denseblock1.denselayer12.norm1.weight"
    )
    assert _densenet_key("features.transition1.norm.weight") == "features.transition1.norm.weight"
