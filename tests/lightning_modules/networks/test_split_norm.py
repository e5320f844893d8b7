"""BatchNorm over parts of a batch against BatchNorm on each part."""

import copy

import pytest
import torch
from torch import nn

from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.split_norm import SplitBatchNorm2d, split_batch_norm


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_part_is_normalized_alone(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, momentum=0.3)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    parts = [copy.deepcopy(norm) for _ in range(3)]
    split = SplitBatchNorm2d(norm, 3)
    images = torch.randn(6, 5, 4, 4).to(memory_format=memory_format).requires_grad_()
    result = split(images)
    expected = torch.empty_like(images)
    for start, part in enumerate(parts):
        expected[start::3] = part(images[start::3])
    torch.testing.assert_close(result, expected)
    weights = torch.randn(6, 5, 4, 4)
    torch.testing.assert_close(
        torch.autograd.grad((result * weights).sum(), images), torch.autograd.grad((expected * weights).sum(), images)
    )
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(split, name), torch.stack([getattr(p, name) for p in parts]).mean(0))
    norm.load_state_dict(split.state_dict())
    torch.testing.assert_close(split.eval()(images), norm.eval()(images))


def test_all_norms_of_a_network_are_replaced_and_names_stay() -> None:
    network = CifarResNet(3, depth=8)
    names = list(network.state_dict())
    split_batch_norm(network, 2)
    assert list(network.state_dict()) == names
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 7 and all(isinstance(norm, SplitBatchNorm2d) for norm in norms)
    with pytest.raises(ValueError, match="norm_splits is 2; it must divide the batch of 3 images"):
        network(torch.rand(3, 3, 8, 8))
    with pytest.raises(ValueError, match="momentum None cannot be split"):
        SplitBatchNorm2d(nn.BatchNorm2d(3, momentum=None), 2)
    with pytest.raises(ValueError, match="norm_splits is 2, and Linear has no BatchNorm2d"):
        split_batch_norm(nn.Linear(2, 2), 2)
