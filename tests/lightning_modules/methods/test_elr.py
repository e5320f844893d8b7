"""ELR's targets and loss by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tailmatch.lightning_modules import ELR
from tailmatch.lightning_modules.losses import SymmetricCrossEntropy
from tailmatch.lightning_modules.methods.elr import early_learning, moved_target
from tests.contract import at_epoch_ends, run, saved
from tests.lightning_modules.pixel_network import PixelNetwork, image


def test_numbers_worked_by_hand() -> None:
    target, probs = torch.tensor([[0.5, 0.1, 0.0]]), torch.tensor([[0.2, 0.7, 0.1]])
    moved = moved_target(target, probs, 0.7)
    torch.testing.assert_close(moved, torch.tensor([[0.41, 0.28, 0.03]]))
    assert early_learning(moved, probs).item() == pytest.approx(math.log(1 - 0.082 - 0.196 - 0.003))
    both = torch.cat([moved, 0 * moved]), torch.cat([probs, probs])
    assert early_learning(*both).item() == pytest.approx(math.log(0.719) / 2)


def test_a_bounded_prediction_is_normalized_in_the_target_alone() -> None:
    method: Any = ELR(3, network=PixelNetwork)
    method.targets.adapt(4)
    logged: dict[str, Any] = {}
    method.track = logged.update
    given = {"labeled": {"weak": image(30, 0, 0), "target": torch.tensor([1]), "index": torch.tensor([2])}}
    loss = method.training_step(given, 0)
    bounded = torch.tensor([0.9999, 1e-4, 1e-4])
    expected = 0.3 * bounded / bounded.sum()
    torch.testing.assert_close(method.targets.rows[2], expected)
    assert method.targets.rows[[0, 1, 3, 4]].eq(0).all()
    term = math.log(1 - float(expected @ bounded))
    assert logged["loss_elr"].item() == pytest.approx(term, rel=1e-5)
    assert loss.item() == pytest.approx(30 + 3 * term, rel=1e-5)
    method.training_step(given, 0)
    torch.testing.assert_close(method.targets.rows[2], 1.7 * expected)


def test_the_target_has_no_gradient_and_the_loss_is_free() -> None:
    method: Any = ELR(3, network=PixelNetwork, lambda_elr=2.0, beta=0.5, loss=SymmetricCrossEntropy())
    method.targets.adapt(2)
    method.targets.rows[0] = torch.tensor([0.2, 0.6, 0.0])
    method.track = lambda **values: None
    pixels = torch.tensor([[1.0, 2.0, 0.5]])
    given = {"labeled": {"weak": image(1, 2, 0.5), "target": torch.tensor([2]), "index": torch.tensor([0])}}
    method.training_step(given, 0).backward()
    scale = torch.ones((), requires_grad=True)
    probs = (pixels * scale).softmax(dim=1)
    target = 0.5 * torch.tensor([[0.2, 0.6, 0.0]]) + 0.5 * probs.detach()
    loss = SymmetricCrossEntropy().mean(pixels * scale, torch.tensor([2]))
    (loss + 2 * (1 - (target * probs).sum(dim=1)).log().mean()).backward()
    torch.testing.assert_close(method.network.scale.grad, scale.grad)


def test_it_draws_a_prediction_to_earlier_ones_against_the_label() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
    probs = logits.softmax(dim=1)
    loss = functional.cross_entropy(logits, torch.tensor([1])) + 3 * early_learning(probs.detach(), probs)
    (gradient,) = torch.autograd.grad(loss, logits)
    (of_label,) = torch.autograd.grad(functional.cross_entropy(logits, torch.tensor([1])), logits)
    assert of_label[0, 0] > 0.7 and gradient[0, 0] < 0  # descent raises the first logit after all


def test_every_labeled_image_has_a_target_in_the_end(tmp_path: Path) -> None:
    run(ELR, tmp_path, at_epoch_ends(tmp_path))  # 72 images in steps, of 40
    rows = saved(tmp_path)["state_dict"]["targets.rows"]
    assert rows.shape == (41, 10) and (rows[:-1].sum(dim=1) > 0.29).all() and rows[-1].eq(0).all()


def test_bad_values_are_named() -> None:
    for name, value in {"lambda_elr": -1, "beta": 1.0, "mixup": 0.5}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            ELR(3, network=PixelNetwork, **{name: value})  # type: ignore[arg-type]
