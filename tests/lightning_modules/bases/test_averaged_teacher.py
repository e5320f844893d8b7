"""The averaged network within a training step: it is the evaluated one, and nothing else changes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from tailmatch.lightning_modules import MeanTeacher
from tailmatch.lightning_modules.bases.averaged_teacher import AveragedTeacher
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tests.contract import assert_same, run
from tests.lightning_modules.pixel_network import PixelNetwork

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Look(Callback):
    """Compares the averaged network with a copy of the network that has the averages, before each step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        method: AveragedTeacher = pl_module
        network, averaging = method.network, method._averaging
        assert averaging is not None and network.training
        reference = copy.deepcopy(network)
        averages = {name.removeprefix("network."): value for name, value in averaging._average.items()}
        assert not reference.load_state_dict(averages, strict=False).unexpected_keys
        before = copy.deepcopy([method.state_dict(), averaging._average])

        with torch.autocast("cpu", torch.bfloat16):
            with running_statistics_kept(network):
                network(IMAGES)  # autocast keeps the trained weights in half precision from here on
            half = method.averaged(network, IMAGES)
        features, logits = method.averaged(network.features_and_logits, IMAGES)
        by_batch = method.averaged(network, IMAGES, in_training_mode=True)
        assert network.training and not logits.requires_grad
        assert_same(before, [method.state_dict(), averaging._average], "weights, statistics and averages")

        with torch.no_grad():
            assert torch.equal(by_batch, reference(IMAGES))
            reference.eval().load_state_dict(averages, strict=False)  # the pass moved its statistics
            assert torch.equal(logits, reference(IMAGES)) and torch.equal(features, reference.features(IMAGES))
            with torch.autocast("cpu", torch.bfloat16):
                assert half.dtype == torch.bfloat16 and torch.equal(half, reference(IMAGES))
            own = copy.deepcopy(network).eval()(IMAGES)
        assert torch.equal(own, logits) == (self.steps == 0)
        self.steps += 1


def test_a_step_has_the_evaluated_network_and_changes_nothing(tmp_path: Path) -> None:
    look = Look()
    run(MeanTeacher, tmp_path, look, max_steps=3, enable_checkpointing=False)
    assert look.steps == 3


def test_outside_of_a_fit_the_weights_are_the_averages() -> None:
    method = MeanTeacher(3, network=PixelNetwork)
    images = torch.rand(2, 3, 1, 3)
    assert torch.equal(method.averaged(method.network, images), method.network(images))


def test_no_averages_are_refused() -> None:
    with pytest.raises(ValueError, match="ema_decay is None, and the teacher of MeanTeacher"):
        MeanTeacher(3, network=PixelNetwork, ema_decay=None)
