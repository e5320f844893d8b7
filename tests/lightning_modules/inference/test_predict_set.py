"""Predictions of a whole set within a fit: the modes they leave, what they check, and who gets what."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.trainer.states import TrainerState
from torch import Tensor

from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules.inference.predict_set import evaluation_mode, predict_set, rows_of_set
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float

NETWORK = partial(CifarResNet, depth=8)
TRAINER: Any = SimpleNamespace(
    precision_plugin=Precision(), progress_bar_callback=None, is_global_zero=True, state=TrainerState()
)


def digits() -> Digits:
    data = Digits(image_size=8, class_counts=ListedCounts([4] * 10, [6] * 10), eval_batch_size=7)
    data.setup("fit")
    return data


def test_evaluation_mode_leaves_every_module_as_it_was() -> None:
    network = NETWORK(10)
    frozen = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    frozen.eval()
    before = [module.training for module in network.modules()]
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == before and any(before) and not frozen.training


def test_probabilities_of_all_images_in_their_order_or_what_is_kept_of_them() -> None:
    data, network = digits(), NETWORK(10).train()
    probs = predict_set(TRAINER, network, data.evaluation_loader(data.labeled))
    with evaluation_mode(network), torch.no_grad():
        expected = network(to_float(data.labeled.images.pixels[data.labeled.rows])).softmax(dim=1)
    assert not probs.requires_grad and torch.allclose(probs, expected, atol=1e-6)
    kept = predict_set(TRAINER, network, data.evaluation_loader(data.labeled), keep=lambda probs: probs.argmax(dim=1))
    assert torch.equal(kept, probs.argmax(dim=1))


def test_the_caller_never_sees_evaluation_mode_also_where_it_breaks_off() -> None:
    data, network = digits(), NETWORK(10).train()
    seen = []

    def compute(images: Any) -> Tensor:
        seen.append((network.training, torch.is_grad_enabled()))
        return network(images)  # type: ignore[no-any-return]

    parts = rows_of_set(TRAINER, network, data.evaluation_loader(data.labeled), compute)
    for rows, batch in parts:
        assert network.training and torch.is_grad_enabled() and len(rows) == len(batch["target"])
        break
    assert seen == [(False, False)] and network.training


def test_nan_is_refused_and_leaves_the_modes() -> None:
    data, network = digits(), NETWORK(10).train()
    network.head.weight.data.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="predictions are NaN"):
        predict_set(TRAINER, network, data.evaluation_loader(data.labeled))
    assert network.training
