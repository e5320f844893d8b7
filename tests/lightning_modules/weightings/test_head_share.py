"""Adsh's thresholds by hand, the labels that they make, and when they change."""

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.weightings import HeadShareThresholds
from tailmatch.lightning_modules.weightings.head_share import head_share_thresholds
from tests.lightning_modules.pixel_network import PixelNetwork

HEAD, TAIL = [0.99, 0.97, 0.96, 0.90, 0.60], [0.92, 0.80, 0.70]


def thresholds(*rows: tuple[int, float], head: int = 0) -> list[float]:
    labels, confidence = torch.tensor([label for label, _ in rows]), torch.tensor([each for _, each in rows])
    found: Tensor = head_share_thresholds(labels, confidence, torch.tensor(head), torch.full((3,), 0.93), 0.95)
    return found.tolist()


def test_each_class_has_the_share_of_the_head_class() -> None:
    rows = [(0, p) for p in HEAD] + [(1, p) for p in TAIL] + [(-1, 0.0)]
    assert thresholds(*rows) == pytest.approx([0.95, 0.92, 0.93])  # share .6, rank 1 of 3; class 2 keeps its own
    assert thresholds(*reversed(rows)) == pytest.approx([0.95, 0.92, 0.93])
    swapped = [({0: 2, 1: 0, -1: -1}[label], p) for label, p in rows]
    assert thresholds(*swapped, head=2) == pytest.approx([0.92, 0.93, 0.95])


def test_ranks_are_exact_and_bounded() -> None:
    rows = [(0, p) for p in HEAD] + [(1, p) for p in (0.9, 0.8, 0.7, 0.6, 0.5)]
    assert thresholds(*rows)[1] == pytest.approx(0.7)  # rank 3 of 5
    assert thresholds((0, 0.5), (1, 0.7), (1, 0.6))[:2] == pytest.approx([0.5, 0.7])  # none is confident: the best
    assert thresholds((0, 0.96), (1, 0.99))[1] == pytest.approx(0.95)  # not above the fixed one
    assert thresholds((1, 0.99)) == pytest.approx([0.93, 0.93, 0.93])  # the head class is never predicted


def test_labels_and_selection_are_those_of_the_thresholds() -> None:
    weighting = HeadShareThresholds()
    method = FixMatch(3, network=PixelNetwork, threshold=0.9, weighting=weighting)
    weighting.adapt(4, torch.tensor([3, 2, 1]))
    weighting.thresholds.copy_(torch.tensor([0.9, 0.5, 0.3]))
    probs = torch.tensor([[0.6, 0.1, 0.3], [0.55, 0.4, 0.05], [0.9, 0.05, 0.05], [0.32, 0.31, 0.37]])
    refined, weights = method.pseudo_labels(probs, torch.arange(4))
    assert refined.argmax(dim=1).tolist() == [2, 1, 0, 2] and weights.tolist() == [1, 0, 1, 1]
    assert weighting.memory.labels.tolist() == [0, 0, 0, 2, -1]  # plain predictions
    torch.testing.assert_close(weighting.memory.confidence, torch.tensor([0.6, 0.55, 0.9, 0.37, 0.0]))


def test_thresholds_change_after_the_start_and_an_interval() -> None:
    weighting = HeadShareThresholds(every=2, start=1)
    weighting.prepare(2, 0.9)
    weighting.adapt(2, torch.tensor([1, 5]))  # class 1 is the head
    rows, seen = torch.tensor([[0.6, 0.4], [0.05, 0.95]]), []
    for _ in range(4):
        seen.append(weighting(rows, weighting.refine(rows, torch.arange(2)), torch.arange(2), None).tolist())
    assert seen == [[0, 1], [0, 1], [0, 1], [1, 1]]
    torch.testing.assert_close(weighting.thresholds, torch.tensor([0.6, 0.9]))
