"""A hidden layer between another network's features and the head."""

import pytest
import torch
from torch import nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.networks import BottleneckNetwork, CategoryNetwork, CifarResNet
from tests.contract import category_network, plain_network


def test_equals_the_published_block_on_the_same_weights() -> None:
    torch.manual_seed(0)
    network = BottleneckNetwork(5, plain_network, width=12)
    backbone = CifarResNet(5, depth=8, mean=[0.5] * 3, std=[0.25] * 3)
    backbone.load_state_dict({**backbone.state_dict(), **network.backbone.state_dict()})
    network.adapt_normalization([0.5] * 3, [0.25] * 3)
    block = nn.Sequential(  # CS492_cv_Zoommalgo models.py, ClassBlock
        nn.Linear(backbone.feature_dim, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 5)
    )
    parts = (network.bottleneck, network.norm, network.head)
    for own, theirs in zip(parts, (block[0], block[1], block[4]), strict=True):
        theirs.load_state_dict(own.state_dict())
    images = torch.rand(6, 3, 8, 8)
    for training in (False, True):
        for module in (network, backbone, block):
            module.train(training)
        torch.manual_seed(1)  # of the dropout
        expected = block(backbone.features(images))
        torch.manual_seed(1)
        torch.testing.assert_close(network(images), expected)


def test_initial_weights_are_the_published_ones() -> None:
    network = BottleneckNetwork(100, plain_network)
    for linear in (network.bottleneck, network.head):
        assert linear.weight.std().item() == pytest.approx(1e-3, rel=0.05)
        assert not linear.bias.any()
    assert network.norm.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_checkpoint_can_describe_it_and_categories_go_around_it() -> None:
    assert BottleneckNetwork(3, plain_network, width=7).description()["init_args"]["width"] == 7
    outer = CategoryNetwork(3, ["size"], lambda k: BottleneckNetwork(k, plain_network, width=7), embedding_dim=2)
    assert outer.feature_dim == 9
    with pytest.raises(SettingsError, match="takes images only"):
        BottleneckNetwork(3, category_network)
    with pytest.raises(SettingsError, match="width is 0"):
        BottleneckNetwork(3, plain_network, width=0)
