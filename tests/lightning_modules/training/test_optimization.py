"""Parameter groups and defaults of optimizers."""

from functools import partial

import pytest
import torch
from torch import nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.training.optimization import FixMatchSGD, parameter_groups


def test_norms_and_biases_are_not_decayed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = FixMatchSGD(parameter_groups(net))
    decayed, plain = optimizer.param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2] and decayed["weight_decay"] == 5e-4
    assert [p.ndim for p in plain["params"]] == [1, 1, 1, 1] and plain["weight_decay"] == 0
    assert len(parameter_groups(net, decay_norm_and_bias=True)[0]["params"]) == 6


def test_frozen_parameters_are_left_out() -> None:
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(net)) == 1


def test_what_an_optimizer_refuses_is_a_setting() -> None:
    model = FixMatch(10, network=partial(CifarResNet, depth=8), optimizer=partial(torch.optim.SGD, lr=-1.0))
    with pytest.raises(SettingsError, match="the optimizer cannot be made: Invalid learning rate: -1"):
        model.configure_optimizers()
