"""SC-SSL's anchors and thresholds by hand."""

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules.pseudo_labels.sampling_control import (
    Anchor,
    SamplingControl,
    anchors,
    divergences,
    first_thresholds,
)

COUNTS = torch.tensor([70, 20, 10])


def close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found.float(), torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("level", "gamma", "output", "expansive"),
    [(4, 100, 0.95, 0.75), (5, 1, 0.948, 0.93), (6, 100, 0.75, 0.35), (6, 10, 0.91, 0.65)],
)
def test_first_thresholds_by_hand(level: int, gamma: float, output: float, expansive: float) -> None:
    rho = first_thresholds(level, gamma, torch.tensor([5, 40, 1, 30]))  # classes 1 and 3 are frequent
    close(rho[0], output, 0.95, output, 0.95)
    close(rho[1], expansive, 0.95, expansive, 0.95)


def test_of_an_odd_number_of_classes_the_middle_one_is_rare_and_no_threshold_is_negative() -> None:
    rho = first_thresholds(6, 100, torch.tensor([1, 2, 3]), threshold=0.5)
    close(rho[1], 0, 0, 0.5)


def test_the_anchors_are_those_of_the_ranks() -> None:
    consistent, uniform, inverse, gaussian, inverse_gaussian = anchors(torch.tensor([20, 70, 10]))
    close(consistent.prior, 0.2, 0.7, 0.1)
    close(uniform.prior, 1 / 3, 1 / 3, 1 / 3)
    close(inverse.prior, 0.2, 0.1, 0.7)
    # Ranks 1, 0, 2 with mean 1 and width 0.5: densities 1, e^-2, e^-2.
    close(gaussian.prior, 0.7870, 0.1065, 0.1065)
    close(inverse_gaussian.prior, 0.0634, 0.4683, 0.4683)
    assert [each.level for each in anchors(COUNTS)] == [4, 5, 6, 4, 6]
    assert [each.gamma for each in anchors(COUNTS)] == pytest.approx([7, 1, 7, 7.3891, 7.3891], rel=1e-4)


def test_divergences_by_hand() -> None:
    counts = torch.tensor([500, 300, 200])
    close(divergences(counts, anchors(COUNTS)[:3]), 0.0920, 0.0690, 0.6758)
    one = Anchor("", torch.tensor([0.25, 0.75], dtype=torch.float64), 4)
    close(divergences(torch.tensor([0, 9]), [one]), 0.2877)  # a class that is never predicted adds nothing


@pytest.mark.parametrize(
    ("counts", "nearest"),
    [([700, 200, 100], 0), ([500, 300, 200], 1), ([90, 200, 710], 2), ([100, 800, 100], 3), ([480, 60, 460], 4)],
)
def test_the_nearest_anchor_sets_the_thresholds(counts: list[int], nearest: int) -> None:
    control = SamplingControl(3, 0.95, 1.0, 0.005, 0.0)
    close(control.thresholds.flatten(), *[0.95] * 6)
    found = control.begin(torch.tensor(counts), COUNTS)
    anchor = anchors(COUNTS)[nearest]
    assert control.anchor.item() == nearest and f"{anchor.name} is nearest" in found
    torch.testing.assert_close(control.thresholds, first_thresholds(anchor.level, anchor.gamma, COUNTS))


def test_thresholds_decrease_where_the_bias_is_large_down_to_the_floor() -> None:
    control = SamplingControl(3, 0.95, 1.0, 0.1, 0.7)
    bias = torch.tensor([1.0, 1.5, -2.0])
    control.relax(bias)
    close(control.thresholds[0], 0.95, 0.95, 0.95)  # nothing is counted yet
    control.begin(torch.tensor([10, 20, 70]), COUNTS)  # inverse, of gamma 7
    close(control.thresholds[0], 0.95, 0.922, 0.922)
    close(control.thresholds[1], 0.95, 0.74, 0.74)
    control.relax(bias)
    close(control.thresholds[0], 0.95, 0.822, 0.922)
    close(control.thresholds[1], 0.95, 0.7, 0.74)
    for _ in range(5):
        control.relax(bias)
    close(control.thresholds[0], 0.95, 0.7, 0.922)


def test_a_first_threshold_below_the_floor_stays() -> None:
    control = SamplingControl(3, 0.95, 1.0, 0.1, 0.9)
    control.begin(torch.tensor([10, 20, 70]), COUNTS)
    control.relax(torch.full((3,), 2.0))
    close(control.thresholds[1], 0.9, 0.74, 0.74)
