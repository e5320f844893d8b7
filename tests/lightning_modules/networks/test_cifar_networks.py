"""WideResNet and CifarResNet: sizes, initialization and the details of their sources."""

from math import sqrt

import pytest
import torch
from torch import nn

from tailmatch.lightning_modules.networks import CifarResNet, Network, WideResNet
from tailmatch.lightning_modules.networks.cifar_resnet import _BasicBlock
from tailmatch.lightning_modules.networks.wide_resnet import _Residual


def count(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts() -> None:
    assert count(WideResNet(10)) == 1_467_610  # WRN-28-2: 1.5 M
    assert count(CifarResNet(10, depth=20)) == 269_722  # 0.27 M, arXiv 1512.03385 table 6
    assert count(CifarResNet(10)) == 464_154  # ResNet-32: 0.46 M


def test_wide_resnet_initialization() -> None:
    torch.manual_seed(0)
    network = WideResNet(10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= 30_000:
            k, out_channels = module.kernel_size[0], module.out_channels
            assert module.weight.std().item() == pytest.approx(sqrt(2 / (k * k * out_channels)), rel=0.03)
    assert network.head.weight.std().item() == pytest.approx(sqrt(2 / (128 + 10)), rel=0.1)  # Glorot normal
    assert not network.head.bias.any()


def test_wide_resnet_details() -> None:
    network = WideResNet(10)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 1e-3)}
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    blocks = [module for module in network.modules() if isinstance(module, _Residual)]
    assert [block.activate_first for block in blocks] == [True] + [False] * 11
    # One convolution by shortcut at the head of each stage, and none elsewhere.
    assert [i for i, b in enumerate(blocks) if isinstance(b.shortcut, nn.Conv2d)] == [0, 4, 8]
    assert all(conv.bias is None for conv in network.modules() if isinstance(conv, nn.Conv2d))


@pytest.mark.parametrize("activate", [True, False])
def test_wide_resnet_shortcut_starts_after_the_first_activation_if_asked(activate: bool) -> None:
    block = _Residual(4, 4, 1, momentum=0.1, activate_first=activate).eval()
    nn.init.zeros_(block.residual[2].weight)  # nothing but the shortcut is left
    x = -torch.ones(1, 4, 2, 2)
    # Normalized by a running mean of 0 and variance of 1, then LeakyReLU: -1 becomes -0.1.
    expected = -0.1 / sqrt(1 + 1e-3) if activate else -1.0
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.full((1, 4, 2, 2), expected))


def test_cifar_resnet_initialization() -> None:
    torch.manual_seed(0)
    network = CifarResNet(100)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= 30_000:
            fan_in = module.in_channels * 9
            assert module.weight.std().item() == pytest.approx(sqrt(2 / fan_in), rel=0.03)
    assert network.head.weight.std().item() == pytest.approx(sqrt(2 / 64), rel=0.05)


def test_cifar_resnet_shortcut_drops_pixels_and_pads_channels() -> None:
    block = _BasicBlock(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)  # nothing but the shortcut is left
    x = torch.rand(1, 2, 4, 4)
    with torch.no_grad():
        out = block(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()
    assert not list(_BasicBlock(2, 4, stride=2).children())[4:]  # option A has no module of its own


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="depth is 27; it must be 6n \\+ 4"):
        WideResNet(10, depth=27)
    with pytest.raises(ValueError, match="depth is 4; .* at least 10"):
        WideResNet(10, depth=4)
    with pytest.raises(ValueError, match="widen is 0; it must be at least 1"):
        WideResNet(10, widen=0)
    with pytest.raises(ValueError, match="depth is 28; it must be 6n \\+ 2"):
        CifarResNet(10, depth=28)
