"""The averaged weights by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from tailmatch.lightning_modules.training.weight_averaging import TRAINED_WEIGHTS, WeightAveraging, averaged_tensors


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("queue", torch.zeros(2))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.layer.weight.fill_(value)
            self.norm.running_mean.fill_(10 * value)  # type: ignore[union-attr]


def trainer(step: int) -> Any:
    return SimpleNamespace(global_step=step, state=SimpleNamespace(fn=TrainerFn.FITTING))


def averaged(steps: list[float]) -> tuple[WeightAveraging, Net]:
    net, averaging = Net(), WeightAveraging(0.9)
    net.set(steps[0])
    averaging.on_fit_start(trainer(0), net)
    for step, value in enumerate(steps[1:], 1):
        net.set(value)
        averaging.on_train_batch_end(trainer(step), net)
    return averaging, net


def test_average_by_hand_and_what_is_averaged() -> None:
    averaging, net = averaged([1.0, 2.0, 4.0])
    # 0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4 = 1.39
    averaging.on_validation_start(trainer(2), net)
    assert net.layer.weight.item() == pytest.approx(1.39)
    assert net.norm.running_mean.item() == pytest.approx(13.9)  # type: ignore[union-attr]
    averaging.on_validation_end(trainer(2), net)
    assert net.layer.weight.item() == 4
    names = averaged_tensors(net).keys()
    assert names == {"layer.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}


def test_what_is_frozen_is_not_averaged() -> None:
    net = Net()
    net.norm.requires_grad_(False)
    assert averaged_tensors(net).keys() == {"layer.weight"}
    net.layer.requires_grad_(False)
    net.norm.weight.requires_grad_(True)
    assert averaged_tensors(net).keys() == {"norm.weight", "norm.running_mean", "norm.running_var"}


def test_accumulated_batches_average_once() -> None:
    averaging, net = averaged([1.0, 2.0])
    net.set(100.0)
    averaging.on_train_batch_end(trainer(1), net)
    averaging.on_validation_start(trainer(1), net)
    assert net.layer.weight.item() == pytest.approx(1.1)


def test_checkpoint_has_both_and_a_resume_takes_both() -> None:
    averaging, net = averaged([1.0, 2.0])
    checkpoint: dict[str, Any] = {"state_dict": net.state_dict()}
    averaging.on_save_checkpoint(trainer(1), net, checkpoint)
    assert checkpoint["state_dict"]["layer.weight"].item() == pytest.approx(1.1)
    assert checkpoint[TRAINED_WEIGHTS]["layer.weight"].item() == 2

    resumed, other = WeightAveraging(0.9), Net()
    other.load_state_dict(checkpoint["state_dict"])
    resumed.on_load_checkpoint(trainer(1), other, checkpoint)
    resumed.on_fit_start(trainer(1), other)
    assert other.layer.weight.item() == 2
    resumed.on_validation_start(trainer(1), other)
    assert other.layer.weight.item() == pytest.approx(1.1)


def test_interrupted_validation_leaves_the_trained_weights() -> None:
    averaging, net = averaged([1.0, 2.0])
    averaging.on_validation_start(trainer(1), net)
    averaging.on_exception(trainer(1), net, KeyboardInterrupt())
    assert net.layer.weight.item() == 2


def test_a_fit_ends_with_the_averages() -> None:
    averaging, net = averaged([1.0, 2.0])
    averaging.on_fit_end(trainer(1), net)
    assert net.layer.weight.item() == pytest.approx(1.1)


def test_a_frozen_network_has_nothing_to_average() -> None:
    net, averaging = Net(), WeightAveraging(0.9)
    net.set(-0.0)
    net.requires_grad_(False)
    averaging.on_fit_start(trainer(0), net)
    averaging.on_train_batch_end(trainer(1), net)
    averaging.on_fit_end(trainer(1), net)
    assert math.copysign(1, net.layer.weight.item()) == -1


def test_bad_decay_is_named() -> None:
    with pytest.raises(ValueError, match="ema_decay is 1.0"):
        WeightAveraging(1.0)
