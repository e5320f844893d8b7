"""Mean Teacher's step by hand, on a network whose logits are the pixels."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import MeanTeacher
from tests.lightning_modules.pixel_network import PixelNetwork, image


def step(done: int, **arguments: Any) -> tuple[Tensor, dict[str, Tensor], MeanTeacher]:
    """Compute the loss at a step of 10, with a teacher whose logits are twice the pixels."""
    method = MeanTeacher(3, network=PixelNetwork, **arguments)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    method._trainer = SimpleNamespace(global_step=done, max_steps=10, max_epochs=-1)  # type: ignore[assignment]
    assert method._averaging is not None
    method._averaging._average = {"network.scale": torch.tensor(2.0)}
    weak = [torch.cat([image(0, 0, 0), image(1, 0, 0)]), torch.cat([image(1, 0, 0), image(0, 0, 1)])]
    batch: Any = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {"weak": weak, "index": torch.tensor([4, 2])},
    }
    return method.training_step(batch, 0), logged, method


def distance(student: tuple[float, ...], teacher: tuple[float, ...]) -> float:
    """Compute the mean squared difference of the softmax of logits, without torch."""
    rows = [[math.exp(z) / sum(map(math.exp, logits)) for z in logits] for logits in (student, teacher)]
    return sum((p - q) ** 2 for p, q in zip(*rows, strict=True)) / 3


LABELED = -math.log(math.e / (math.e + 2))
# The teacher's (2, 0, 0) and (0, 0, 2) are (.7870, .1065, .1065) and its reverse, the student's (1, 0, 0) (.5761, ...).
UNLABELED = (distance((0, 0, 0), (2, 0, 0)) + distance((1, 0, 0), (0, 0, 2))) / 2


def test_the_student_of_one_view_learns_what_the_teacher_says_of_the_other() -> None:
    loss, logged, method = step(4)
    assert distance((0, 0, 0), (2, 0, 0)) == pytest.approx((0.7870 - 1 / 3) ** 2 / 2, abs=1e-4)
    assert logged["loss_unlabeled"].item() == pytest.approx(UNLABELED, rel=1e-5)
    assert loss.item() == pytest.approx(LABELED + 50 * UNLABELED, rel=1e-5)
    logged["loss_unlabeled"].backward()  # type: ignore[no-untyped-call]
    assert method.network.scale.grad is not None and method.network.scale.grad.abs() > 0.01


def test_the_weight_rises() -> None:
    for done, factor in ((0, 0.0), (1, 0.25), (5, 1.0)):
        loss, _, _ = step(done, lambda_u=2.0)
        assert loss.item() == pytest.approx(LABELED + 2 * factor * UNLABELED, rel=1e-5)
    method = MeanTeacher(3, network=PixelNetwork, rampup=0.0)
    assert method.ramp() == 1


@pytest.mark.parametrize("name", ["lambda_u", "rampup", "ema_decay"])
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        MeanTeacher(3, network=PixelNetwork, **{name: -1})
