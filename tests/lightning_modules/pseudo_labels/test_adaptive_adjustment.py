"""The strength of ACR's adjustment, by numbers that were computed without this package."""

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules.pseudo_labels.adaptive_adjustment import AdaptiveAdjustment, anchor_distances
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift

PRIOR = torch.tensor([0.7, 0.2, 0.1])
ESTIMATE = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)


def close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found.flatten(), torch.tensor(expected), atol=1e-4, rtol=0)


def made(counts: Tensor = PRIOR, **arguments: object) -> AdaptiveAdjustment:
    settings = {"momentum": 0.0, "every": 1, "warmup_steps": 0, "estimate": "counts", **arguments}
    adjustment = AdaptiveAdjustment(len(counts), **settings)  # type: ignore[arg-type]
    adjustment.begin(counts)
    return adjustment


def everything(labels: Tensor) -> Tensor:
    return torch.ones(len(labels), dtype=torch.bool)


def test_distances_strength_and_shift_by_hand() -> None:
    adjustment = made()
    adjustment.update(ESTIMATE, everything(ESTIMATE))
    close(adjustment.probs, 0.5, 0.3, 0.2)
    close(anchor_distances(adjustment.probs, PRIOR), 0.0886, 0.0696, 0.6554)
    close(adjustment.tau, 0.5342)
    close(-log_shift(PRIOR, adjustment.tau), 0.1905, 0.8598, 1.2301)
    rows = torch.tensor([[1.0, 0.0, 0.5]])
    expected = (rows + torch.tensor([0.1905, 0.8598, 1.2301])).softmax(dim=1)
    torch.testing.assert_close(adjustment.refine(rows.softmax(dim=1), torch.zeros(1)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("anchor", "tau"), [(0, 0.074), (1, 0.815), (2, 1.761)])
def test_strengths_at_the_anchors_of_cifar10(anchor: int, tau: float) -> None:
    prior = torch.tensor([500 / 100 ** (k / 9) for k in range(10)]).floor()
    prior = prior / prior.sum()
    estimate = [prior, torch.full((10,), 0.1), prior.flip(0)][anchor]
    distances = anchor_distances(estimate, prior)
    assert distances[anchor].item() == pytest.approx(0, abs=1e-6)
    assert 2 * distances.softmax(dim=0)[0].item() == pytest.approx(tau, abs=2e-3)


def test_the_reverse_goes_by_rank() -> None:
    order = torch.tensor([1, 2, 0])
    estimate = torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(anchor_distances(estimate[order], PRIOR[order]), anchor_distances(estimate, PRIOR))
    close(anchor_distances(torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0.7, 0.1, 0.2]))[2], 0.0)


def test_presence_counts_each_class_with_a_confident_image_once() -> None:
    labels = torch.tensor([0, 0, 1, 2, 1])
    confident = torch.tensor([True, True, False, True, False])
    adjustment = made(estimate="presence", momentum=0.5)
    adjustment.update(labels, confident)
    close(adjustment.probs, 1 / 6 + 0.25, 1 / 6, 1 / 6 + 0.25)
    counts = made(momentum=0.5)
    counts.update(labels, confident)
    close(counts.probs, 1 / 6 + 1 / 3, 1 / 6, 1 / 6 + 1 / 6)


def test_the_strength_changes_after_the_warmup_and_then_at_the_end_of_each_interval() -> None:
    adjustment = made(warmup_steps=3, every=2)
    seen = []
    for _ in range(8):
        adjustment.update(ESTIMATE, everything(ESTIMATE))
        seen.append(round(adjustment.tau.item(), 3))
    assert seen == [2.0, 2.0, 0.667, 0.667, 0.534, 0.534, 0.534, 0.534]


def test_a_step_without_confident_images_changes_no_estimate() -> None:
    adjustment = made(every=2)
    adjustment.update(ESTIMATE, everything(ESTIMATE))
    adjustment.update(ESTIMATE, ~everything(ESTIMATE))
    close(adjustment.probs, 0.5, 0.3, 0.2)
    # As in the authors' code, the distances of one step are divided by both steps: exp of .0443, .0348, .3277.
    close(adjustment.tau, 2 * 1.0453 / (1.0453 + 1.0354 + 1.3878))


def test_a_class_that_is_never_seen_or_has_no_labeled_image_leaves_a_finite_strength() -> None:
    adjustment = made(torch.tensor([7, 3, 0]))
    labels = torch.zeros(4, dtype=torch.long)
    adjustment.update(labels, everything(labels))
    assert adjustment.probs.tolist() == [1, 0, 0] and 0 < adjustment.tau < 0.01
    assert adjustment.refine(torch.tensor([[1.0, 0.0, 0.0]]), labels).isfinite().all()


def test_a_fixed_strength_stays() -> None:
    adjustment = made(adaptive=False, tau_max=1.5)
    adjustment.update(ESTIMATE, everything(ESTIMATE))
    assert adjustment.tau == 1.5 and not adjustment.steps
