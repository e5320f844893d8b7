"""SoftMatch's weights and the running means behind them, by hand."""

import math

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules.weightings import GaussianWeights
from tailmatch.lightning_modules.weightings.gaussian import gaussian_weights


def weighting(**kwargs: object) -> GaussianWeights:
    made = GaussianWeights(0.9, **kwargs)  # type: ignore[arg-type]
    made.prepare(3, 0.95)
    return made


def asked(made: GaussianWeights, *rows: list[float]) -> Tensor:
    step = torch.tensor(rows)
    weights: Tensor = made(step, step, torch.arange(len(step)), None)
    return weights


def test_statistics_are_those_of_the_confidences_before_alignment() -> None:
    made = weighting()
    asked(made, [0.7, 0.2, 0.1], [0.1, 0.8, 0.1])
    assert made.mean.item() == pytest.approx(0.375) and made.variance.item() == pytest.approx(0.9005)
    asked(made, [0.2, 0.2, 0.6])  # one image has no variance
    assert made.mean.item() == pytest.approx(0.9 * 0.375 + 0.06) and made.variance.item() == pytest.approx(0.9005)


def test_weights_are_one_above_the_mean() -> None:
    weights = gaussian_weights(torch.tensor([0.35, 0.4]), torch.tensor(0.375), torch.tensor(0.9005))
    torch.testing.assert_close(weights, torch.tensor([0.99861, 1.0]), atol=1e-5, rtol=0)
    weights = gaussian_weights(torch.tensor([0.7, 0.9]), torch.tensor(0.8), torch.tensor(0.01))
    torch.testing.assert_close(weights, torch.tensor([math.exp(-2), 1.0]))
    weights = gaussian_weights(torch.tensor([0.7, 0.8]), torch.tensor(0.8), torch.tensor(0.0))
    assert weights.tolist() == [0, 1]


ALIGNED = 0.4 / 0.2 / (0.6 / 0.62 + 0.4 / 0.2)
"""Confidence of class 1, which alignment by p = (.62, .2, .18) makes the more probable one."""


@pytest.mark.parametrize(("align", "confidence"), [(False, 0.6), (True, ALIGNED)])
def test_uniform_alignment_is_of_the_weight(align: bool, confidence: float) -> None:
    made = weighting(align=align)
    made.prior.probs.copy_(torch.tensor([0.6, 0.2, 0.2]))
    made.mean.fill_(0.9)
    made.variance.fill_(0.1)
    weights = asked(made, [0.6, 0.4, 0.0], [1.0, 0.0, 0.0])
    mean, variance = 0.9 * 0.9 + 0.1 * 0.8, 0.9 * 0.1 + 0.1 * 0.08
    expected = math.exp(-((confidence - mean) ** 2) * 4 / (2 * variance))
    torch.testing.assert_close(weights, torch.tensor([expected, 1.0]), atol=1e-4, rtol=0)
