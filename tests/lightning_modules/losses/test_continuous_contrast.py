"""CCL's contrasts by hand, and their gradients."""

import math

import pytest
import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.losses.continuous_contrast import (
    ContinuousContrast,
    class_scores,
    propagated,
    reliable_contrast,
    smoothed_contrast,
)

AXES = torch.eye(2)


def test_scores_are_those_of_the_mean_similarity_of_a_class() -> None:
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    [[first, second]] = class_scores(torch.tensor([[1.0, 0.0]]), known, labels).tolist()
    assert first == pytest.approx(math.log((math.exp(10) + math.exp(6) + 0.5 * math.exp(8)) / 2.5), rel=1e-5)
    assert second == pytest.approx(math.log((1 + 0.5 * math.exp(8)) / 1.5), rel=1e-5)


def test_labels_are_propagated_by_hand() -> None:
    # p is (1, 0) and (0, 1) up to 5e-5, and S has 0.7311 and 0.2689: the difference of both rows is an eigenvector of S
    # with 0.4621, and becomes 0.8 / (1 - 0.2 * 0.4621) = 0.8815 of what it was. Their sum stays.
    found = propagated(AXES, AXES, AXES)
    torch.testing.assert_close(found, torch.tensor([[0.9407, 0.0593], [0.0593, 0.9407]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(propagated(AXES[:1], AXES, AXES), torch.tensor([[1.0, 0.0]]), atol=1e-4, rtol=0)


def test_the_smoothed_contrast_by_hand() -> None:
    # The target is 0.9407^4, normalized: 1 up to 2e-5. The entropy of the mean is that of 0.9407, or of a half.
    own, other = -math.log(0.94069), -math.log(0.05931)
    same = smoothed_contrast(AXES, [AXES, AXES], AXES, AXES).item()
    assert same == pytest.approx((2 * own + 0.94069 * own + 0.05931 * other) / 3, rel=1e-3)
    exchanged = smoothed_contrast(AXES, [AXES, AXES.flip(0)], AXES, AXES).item()
    assert exchanged == pytest.approx((own + other + math.log(2)) / 3, rel=1e-3)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_reliable_contrast_by_hand(weight: float) -> None:
    # Two centers, a labeled row of class 0, and a pseudo-label.
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.2, 0.8]])
    loss = reliable_contrast(rows, labels, torch.tensor([1.0, 1.0, 1.0, weight]), 2).item()
    near = math.exp(10)
    if not weight:
        assert loss == pytest.approx(math.log1p(1 / near), rel=1e-2)  # the scores are log e^10 and log 1
        return
    labeled = math.log1p(1 / ((near + 0.2) / 1.2))  # without itself, class 0 has 1 + 0.2 rows
    pseudo = 0.2 * math.log1p(near) + 0.8 * math.log1p(1 / near)  # class 0 has 2 rows at right angles, class 1 has 1
    assert loss == pytest.approx((labeled + pseudo) / 2, rel=1e-4)


def test_a_class_without_images_has_its_center_and_finite_gradients() -> None:
    rows = nn.functional.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    rows.requires_grad_()
    labels = torch.cat([torch.eye(3), torch.eye(3)[[0, 0, 1, 1, 0, 1]]])
    weights = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 1, 0])
    loss = reliable_contrast(rows, labels, weights, 3) + smoothed_contrast(rows[3:5], [rows[5:7]], rows, labels)
    [gradient] = torch.autograd.grad(loss, rows)
    assert gradient.isfinite().all() and gradient[2].any()
    [gradient] = torch.autograd.grad(reliable_contrast(rows, labels, weights, 3), rows)
    assert gradient.any(dim=1).tolist() == [True] * 6 + [False, True, False]  # those that are not reliable have none


def test_the_module_puts_every_row_in_its_place() -> None:
    """Without projections, both losses are those of the rows, in the order of the labels."""

    def unit(*angles: float) -> Tensor:
        return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])

    contrast = ContinuousContrast(2)
    contrast.features, contrast.centers = nn.Sequential(), nn.Sequential()
    labeled = [unit(0.1, 0.2), unit(1.0, 0.3)]
    unlabeled = [unit(0.4, 0.5, 0.6), unit(0.7, 1.5, 0.8), unit(1.1, 1.2, 0.0)]
    probs, reliable = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.2, 0.8]]), torch.tensor([1.0, 0.0, 1.0])
    smoothed, of_reliable = contrast(labeled, torch.tensor([1, 0]), unlabeled, probs, reliable, 3 * AXES)
    known, classes = torch.cat([AXES, *labeled]), torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0], [0, 1], [1, 0]])
    torch.testing.assert_close(smoothed, smoothed_contrast(unlabeled[0], unlabeled[1:], known, classes))
    powers = torch.tensor([[0.1296, 0.0256], [0.0016, 0.4096]])
    sharp = powers / powers.sum(dim=1, keepdim=True)
    rows = torch.cat([known, unlabeled[1][[0, 2]], unlabeled[2][[0, 2]]])  # as if the other row were not there
    expected = reliable_contrast(rows, torch.cat([classes, sharp, sharp]), torch.ones(10), 2)
    torch.testing.assert_close(of_reliable, expected)
