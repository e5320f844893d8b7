"""A head behind several BatchNorms of the feature map, and the networks that give their map."""

import pytest
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.networks import CifarResNet, Network, WideResNet
from tailmatch.lightning_modules.networks.class_wise_head import ClassWiseHead
from tests.contract import category_network
from tests.lightning_modules.pixel_network import PixelNetwork


@pytest.mark.parametrize("network", [WideResNet(4, depth=10, widen=1), CifarResNet(4, depth=8), category_network(4)])
def test_features_are_the_mean_of_the_map(network: Network) -> None:
    images = torch.rand(2, 3, 16, 16)
    network.eval()
    found = network.feature_map(images)
    assert found.shape == (2, network.feature_dim, 4, 4)
    torch.testing.assert_close(found.mean(dim=(2, 3)), network.features(images))


def test_a_network_without_a_map_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="a PixelNetwork does not give it: choose a WideResNet or a CifarResNet"):
        PixelNetwork(3).feature_map(torch.rand(1, 3, 1, 3))


def test_evaluation_is_the_mean_of_the_branches_of_the_map() -> None:
    torch.manual_seed(0)
    head = ClassWiseHead(torch.nn.Linear(5, 3), 5, 3)
    for _ in range(3):
        head.branches(3 * torch.randn(4, 5, 2, 2) + 1)  # moves the running statistics
    for norm in head.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    head.eval()
    feature_map = torch.randn(2, 5, 2, 2)
    branches = head.branches(feature_map)
    expected = torch.stack([head.head(features) for features in branches]).mean(dim=0)
    torch.testing.assert_close(head(feature_map.mean(dim=(2, 3))), expected)
    assert not torch.allclose(branches[0], branches[1])


def test_branches_normalize_by_the_pixels_of_the_batch() -> None:
    head = ClassWiseHead(torch.nn.Linear(1, 2), 1, 2)
    feature_map = torch.tensor([[[[0.0, 2.0]]], [[[4.0, 6.0]]]])  # mean 3, variance 5; means of images 1 and 5
    for features in head.branches(feature_map):
        torch.testing.assert_close(features, torch.tensor([[-2.0], [2.0]]) / 5.00001**0.5)
