"""Schedules by hand, parameter groups, defaults."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.optimization import (
    CosineAnnealing,
    CosineDecay,
    FixMatchSGD,
    WarmupStepDecay,
    parameter_groups,
)


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


def test_warmup_and_steps_are_those_of_imbalanced_semi_self() -> None:
    steps = 97  # an epoch
    schedule = WarmupStepDecay(FixMatchSGD([nn.Parameter(torch.zeros(1))]), total_steps=200 * steps)
    for step in range(200 * steps):
        epoch = step // steps + 1  # as `adjust_learning_rate` counts
        expected = epoch / 5 if epoch <= 5 else 0.0001 if epoch > 180 else 0.01 if epoch > 160 else 1
        assert schedule.factor(step / (200 * steps)) == pytest.approx(expected), step
    assert WarmupStepDecay(FixMatchSGD([nn.Parameter(torch.zeros(1))]), 10, warmup=0).factor(0.0) == 1


def test_cosine_annealing_goes_from_the_full_rate_to_zero() -> None:
    schedule = CosineAnnealing(FixMatchSGD([nn.Parameter(torch.zeros(1))]), total_steps=12)
    factors = [schedule.factor(step / 12) for step in (0, 4, 6, 8, 12)]
    assert factors == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_schedule_state_is_plain() -> None:
    for schedule in (CosineDecay, WarmupStepDecay, CosineAnnealing):
        state = schedule(FixMatchSGD([nn.Parameter(torch.zeros(1))]), 8).state_dict()
        for value in state.values():
            assert value is None or isinstance(value, bool | int | float | list), state


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
