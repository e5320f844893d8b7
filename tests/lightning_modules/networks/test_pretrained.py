"""Beginning with the weights of another training: what is recognized, what is said, what is refused."""

import argparse
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules import MoCoPretraining, Supervised
from tailmatch.lightning_modules.networks import CifarResNet, TorchvisionNetwork, load_pretrained
from tailmatch.lightning_modules.networks.network import Network


class PublicResNet(nn.Module):
    """ResNet-14 with the module names of imbalanced-semi-self, two blocks a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (before, after) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [self.block(before, after, 1 if stage == 1 else 2), self.block(after, after, 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 4)

    @staticmethod
    def block(before: int, after: int, stride: int) -> nn.Module:
        block = nn.Module()
        block.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        block.bn1 = nn.BatchNorm2d(after)
        block.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        block.bn2 = nn.BatchNorm2d(after)
        return block

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                residual = block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x)))))
                if residual.shape != x.shape:
                    quarter = residual.shape[1] // 4
                    x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
                x = functional.relu(residual + x)
        return x.mean(dim=(2, 3))


def randomize(module: nn.Module) -> nn.Module:
    """Give every tensor of a module numbers of its own, statistics too."""
    random = torch.Generator().manual_seed(5)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 * torch.rand(tensor.shape, generator=random) + 0.05)
    return module


@pytest.fixture(scope="module")
def public() -> nn.Module:
    return randomize(PublicResNet()).eval()


def saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder_q."])
def test_public_cifar_resnets_load_whole(prefix: str, public: nn.Module, tmp_path: Path) -> None:
    path = saved(tmp_path / "ckpt.pth.tar", {"epoch": 3, "state_dict": prefixed(prefix, public.state_dict())})
    network = CifarResNet(10, depth=14, mean=[0.4] * 3, std=[0.3] * 3).eval()
    message = load_pretrained(network, path)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.features(images), public((images - 0.4) / 0.3))
    # 13 convolutions, 13 norms of 5 tensors; of the network also head (2), mean, std.
    assert f"{path}: 78 of 82 tensors loaded" in message
    assert "head.weight, head.bias (the head starts from random weights)" in message
    assert "mean, std (channel statistics of the data)" in message
    assert f"unused in the file: {prefix}fc.bias, {prefix}fc.weight" in message


def test_of_a_moco_checkpoint_the_query_network_is_taken(tmp_path: Path) -> None:
    query, key = (torchvision.models.resnet18(num_classes=8) for _ in range(2))
    randomize(query)
    state = prefixed("module.encoder_k.", key.state_dict()) | prefixed("module.encoder_q.", query.state_dict())
    state["module.queue"] = torch.zeros(8, 16)
    network = TorchvisionNetwork(5, "resnet18")
    message = load_pretrained(network, saved(tmp_path / "moco.pth.tar", {"state_dict": state, "arch": "resnet18"}))
    assert torch.equal(network.backbone.layer3[1].conv2.weight, query.layer3[1].conv2.weight)
    assert torch.equal(network.backbone.bn1.running_var, query.bn1.running_var)
    assert "120 of 124 tensors loaded from 'module.encoder_q.'" in message
    assert "module.encoder_k.bn1.bias" in message and "and 122 more" in message  # 122 of the key's, fc, queue


def test_torchvision_state_dicts_load(tmp_path: Path) -> None:
    original = randomize(torchvision.models.resnet18())
    network = TorchvisionNetwork(5, "resnet18")
    load_pretrained(network, saved(tmp_path / "resnet18.pth", original.state_dict()))
    assert torch.equal(network.backbone.conv1.weight, original.conv1.weight)


def test_own_checkpoints_give_the_backbone_and_neither_head_nor_statistics(tmp_path: Path) -> None:
    method = Supervised(num_classes=4, network=partial(CifarResNet, depth=8))
    randomize(method)
    network = CifarResNet(4, depth=8)
    head = network.head.weight.clone()
    network.adapt_normalization([0.1] * 3, [0.2] * 3)
    message = load_pretrained(network, saved(tmp_path / "last.ckpt", {"state_dict": method.state_dict()}))
    assert torch.equal(network.backbone[4].conv2.weight, method.network.backbone[4].conv2.weight)  # type: ignore[index]
    assert torch.equal(network.head.weight, head)
    assert network.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert "42 of 46 tensors loaded from 'network.'" in message
    assert "class_counts, network.head.bias, network.head.weight and 2 more" in message


def test_of_this_packages_moco_the_query_network_is_taken(tmp_path: Path) -> None:
    method = MoCoPretraining(num_classes=4, network=partial(CifarResNet, depth=8), queue_size=8)
    randomize(method.network)
    network = CifarResNet(4, depth=8)
    message = load_pretrained(network, saved(tmp_path / "last.ckpt", {"state_dict": method.state_dict()}))
    query = method.network.backbone[3].bn2.running_var  # type: ignore[index]
    assert torch.equal(network.backbone[3].bn2.running_var, query)
    assert "42 of 46 tensors loaded from 'network.'" in message


def test_weights_of_before_the_counter_load(public: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in public.state_dict().items() if not key.endswith("num_batches_tracked")}
    message = load_pretrained(CifarResNet(10, depth=14), saved(tmp_path / "old.pth", state))
    assert "65 of 82" in message and "and 10 more (not in the file, and without effect)" in message


def unchanged(network: Network, path: str, message: str) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_pretrained(network, path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_nothing_of_the_backbone_is_an_error(public: nn.Module, tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", prefixed("encoder.", public.state_dict()))
    unchanged(
        CifarResNet(10, depth=14),
        path,
        "none of its 80 tensors is of this CifarResNet's backbone; it has encoder.conv1.weight, .* has backbone.0.w",
    )
    head = saved(tmp_path / "head.pth", {"head.weight": torch.zeros(10, 64), "mean": torch.zeros(1, 3, 1, 1)})
    unchanged(CifarResNet(10, depth=14), head, "none of its 2 tensors")


def test_a_part_of_the_backbone_is_an_error(public: nn.Module, tmp_path: Path) -> None:
    path = saved(tmp_path / "rot.pth", public.state_dict())
    unchanged(CifarResNet(10, depth=20), path, "30 missing: backbone.5.conv1.weight, ")
    state = public.state_dict()
    state["layer2.1.bn1.weight"] = torch.ones(7)
    unchanged(
        CifarResNet(10, depth=14),
        saved(tmp_path / "reshaped.pth", state),
        re.escape("1 of another shape: backbone.6.bn1.weight [7] instead of [32]"),
    )


class Executes:
    """Pickles to a call, as a malicious file would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_no_code_of_a_file_is_executed(public: nn.Module, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = saved(tmp_path / "bad.pth", {"state_dict": public.state_dict(), "args": Executes(trace)})
    unchanged(CifarResNet(10, depth=14), path, r"bad.pth.*it holds \w+.mkdir, and only tensors")
    assert not trace.exists()


@pytest.mark.parametrize("extra", [argparse.Namespace(lr=0.1), np.float64(0.5)], ids=["namespace", "numpy"])
def test_legacy_files_are_refused_with_the_way_out(extra: object, public: nn.Module, tmp_path: Path) -> None:
    path = saved(tmp_path / "legacy.pth", {"state_dict": public.state_dict(), "args": extra})
    unchanged(CifarResNet(10, depth=14), path, r"convert it once in Python: torch.save\(torch.load\(old")


def test_a_missing_file_is_named() -> None:
    unchanged(CifarResNet(10, depth=8), "nowhere.ckpt", "'nowhere.ckpt' does not exist")
