"""Schedules by hand, and as in the authors' code."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tailmatch.lightning_modules.training.optimization import FixMatchSGD
from tailmatch.lightning_modules.training.schedules import CosineAnnealing, CosineDecay, StepDecay, StepSchedule


def test_cosine_is_the_papers_at_start_middle_and_end() -> None:
    optimizer = FixMatchSGD([nn.Parameter(torch.zeros(1))])
    schedule = CosineDecay(optimizer, total_steps=8)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0.03
    assert rates[4] == pytest.approx(0.03 * math.cos(7 * math.pi / 32))
    assert rates[8] == pytest.approx(0.03 * 0.19509032201612825)  # cos(7 pi / 16)
    assert rates[9] == rates[8]


def test_cosine_annealing_goes_from_the_full_rate_to_zero() -> None:
    schedule = CosineAnnealing(FixMatchSGD([nn.Parameter(torch.zeros(1))]), total_steps=12)
    factors = [schedule.factor(step / 12) for step in (0, 4, 6, 8, 12)]
    assert factors == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def factors(steps: int, **kwargs: Any) -> list[float]:
    """Rate of each step, relative to the base rate."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = StepDecay(optimizer, steps, **kwargs)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_step_decay_divides_by_ten_at_its_milestones() -> None:
    assert factors(10) == pytest.approx([1.0] * 8 + [0.1, 0.01])
    assert factors(4, milestones=(0.5,)) == pytest.approx([1, 1, 0.1, 0.1])


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 97])
def test_step_decay_is_the_schedule_of_imbalanced_semi_self(steps_per_epoch: int) -> None:
    expected = []
    for epoch in range(1, 201):  # YyzHarry/imbalanced-semi-self utils.py counts from 1
        rate = epoch / 5 if epoch <= 5 else 1.0 if epoch <= 160 else 0.01 if epoch <= 180 else 0.0001
        expected += [rate] * steps_per_epoch
    recipe = {"milestones": (0.8, 0.9), "factors": (0.01, 0.0001), "warmup": 0.025}
    assert factors(200 * steps_per_epoch, **recipe) == expected


def test_many_stairs_are_a_line() -> None:
    rising = factors(100, warmup=0.1, warmup_stairs=10)[:11]
    assert rising == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"milestones": (0.9, 0.8)}, r"milestones are \[0.9, 0.8\]; they must be rising shares"),
        ({"milestones": (0.5, 1.0)}, r"milestones\[1\] is 1.0"),
        ({"factors": (0.1,)}, r"factors are \[0.1\]; there must be one for each milestone"),
        ({"warmup": 0.85}, "warmup is 0.85; it must end before the first milestone"),
        ({"warmup": -0.1}, "warmup is -0.1"),
        ({"warmup_stairs": 0}, "warmup_stairs is 0"),
    ],
)
def test_step_decay_checks_its_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factors(10, **arguments)


@pytest.mark.parametrize("schedule", [CosineDecay, StepDecay, CosineAnnealing])
def test_schedule_state_is_plain(schedule: type[StepSchedule]) -> None:
    state = schedule(FixMatchSGD([nn.Parameter(torch.zeros(1))]), 8).state_dict()
    for value in state.values():
        assert value is None or isinstance(value, bool | int | float | list), state
