"""SAW's weights by hand, and when they change."""

from unittest.mock import patch

import pytest
import torch
from torch.nn import functional

from tailmatch.lightning_modules import SAW
from tailmatch.lightning_modules.weightings import FrequencyWeights
from tailmatch.lightning_modules.weightings.frequency import inverse_effective_numbers
from tests.lightning_modules.pixel_network import PixelNetwork


def test_inverse_effective_numbers() -> None:
    weights = inverse_effective_numbers(torch.tensor([50, 9, 1]))  # beta = .95
    torch.testing.assert_close(weights, torch.tensor([0.1366, 0.3411, 2.5223]), atol=5e-5, rtol=0)
    torch.testing.assert_close(inverse_effective_numbers(torch.tensor([1, 0])), torch.ones(2))  # beta = 0
    torch.testing.assert_close(inverse_effective_numbers(torch.tensor([7, 7])), torch.ones(2))


def test_weights_follow_the_newest_predictions_after_the_interval() -> None:
    weighting = FrequencyWeights(every=2)
    weighting.prepare(3, 0.5)
    weighting.adapt(5, torch.ones(3))
    rows = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [1.0, 0.0, 0.0]])
    index = torch.tensor([0, 1, 2, 4])
    assert weighting(rows, rows, index, None).tolist() == [1, 0, 1, 1]
    assert weighting(rows, rows, index, None).tolist() == [1, 0, 1, 1]
    expected = inverse_effective_numbers(torch.tensor([3, 1, 0]))
    found = weighting(rows, rows, index, None)
    torch.testing.assert_close(found, expected[[0, 0, 1, 0]] * torch.tensor([1.0, 0.0, 1.0, 1.0]))


def test_a_resumed_interval_goes_on() -> None:
    first, second = FrequencyWeights(every=3), FrequencyWeights(every=3)
    assert [first.interval.tick() for _ in range(5)] == [False, False, True, False, False]
    second.interval.tick()  # is forgotten
    second.load_state_dict(first.state_dict())
    assert [second.interval.tick() for _ in range(2)] == [True, False]


def test_labels_are_weighed_by_their_counts() -> None:
    method = SAW(3, network=PixelNetwork)
    logits, target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([0, 2])
    with patch.object(method, "class_counts", torch.tensor([50, 9, 1])):
        loss = method.labeled_loss(logits, target)
    losses = functional.cross_entropy(logits, target, reduction="none")
    assert loss.item() == pytest.approx((0.1366 * losses[0] + 2.5223 * losses[1]).item() / 2, rel=1e-3)
