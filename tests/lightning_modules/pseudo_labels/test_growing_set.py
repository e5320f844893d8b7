"""CPG's counts, weights and copies of features, by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules.pseudo_labels.feature_copies import ClassSpread, copies_of, noisy
from tailmatch.lightning_modules.pseudo_labels.growing_set import GrowingSet, smoothed, trusted_counts
from tailmatch.lightning_modules.pseudo_labels.vote_memory import VoteMemory


@pytest.mark.parametrize(
    ("accepted", "least", "expected"),
    [
        ([120, 30, 3], 4, [120, 30, 30]),
        ([120, 30, 5], 4, [120, 30, 5]),
        ([3, 2, 4], 4, [1, 1, 1]),
        ([9, 0, 0], 4, [9, 9, 9]),
        ([0, 0, 0], 0, [1, 1, 1]),
    ],
)
def test_classes_of_few_accepted_images_count_as_the_smallest_of_the_others(
    accepted: list[int], least: int, expected: list[int]
) -> None:
    assert trusted_counts(torch.tensor(accepted).float(), torch.tensor(least)).tolist() == expected


def test_the_shift_of_votes_and_that_of_the_loss() -> None:
    counts = trusted_counts(torch.tensor([120.0, 30.0, 3.0]), torch.tensor(4))
    shift = (counts / counts.sum()).log()
    assert shift.tolist() == pytest.approx([-0.4055, -1.7918, -1.7918], abs=1e-4)
    rows = torch.tensor([[1.0, 1.2, 3.0], [3.0, 1.0, 1.0]])
    assert (rows + shift).softmax(dim=1)[0].tolist() == pytest.approx([0.3172, 0.0969, 0.5859], abs=1e-4)
    assert (rows + shift).softmax(dim=1)[1, 0].item() == pytest.approx(0.9366, abs=1e-4)
    known = torch.tensor([160.0, 40.0, 7.0])
    logits = torch.tensor([2.0, 1.5, 1.0]) + (known / known.sum()).log()
    targets = torch.tensor([[0.9, 0.05, 0.05], [0.15, 0.85, 0.0]])
    assert torch.equal(smoothed(torch.tensor([0]), 3, 0.1)[0], targets[0])
    losses = functional.cross_entropy(logits.expand(2, 3), targets, reduction="none")
    assert losses.tolist() == pytest.approx([0.45584, 1.75841], abs=1e-5)


def test_numbers_of_copies() -> None:
    assert copies_of(torch.tensor([160.0, 40.0, 7.0]), 10).tolist() == [2, 10, 57]
    tail = torch.tensor([400 * 100 ** (-k / 9) for k in range(10)]).floor()
    assert copies_of(tail, 10).tolist() == [0, 0, 1, 2, 3, 6, 10, 16, 30, 45]


def test_the_radius_of_a_class_is_larger_the_more_its_features_differ() -> None:
    spread = ClassSpread(3, 2)
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    for _ in range(2):  # a mean over steps, not a sum
        spread.update(features, torch.tensor([0, 1, 0]), torch.ones(3))
    spread.update(torch.tensor([[7.0, -5.0]]), torch.tensor([1]), torch.zeros(1))  # not accepted
    spread.close()
    assert (spread.radii[:2] / spread.radii[:2].sum()).tolist() == pytest.approx([0.5395, 0.4605], abs=1e-4)
    assert spread.radii[2] == spread.radii[1] and not spread.sums.any()  # a class without images: as if all were equal


def test_copies_vary_in_proportion_to_each_feature() -> None:
    torch.manual_seed(0)
    copies = noisy(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([0.5, 0.1]), 20000)
    assert copies.mean(dim=1).flatten().tolist() == pytest.approx([3, 4, 0, 2], abs=0.01)
    assert copies.std(dim=1).flatten().tolist() == pytest.approx([0.3, 0.4, 0, 0.1], abs=0.01)


def grown(images: int, **arguments: int) -> GrowingSet:
    arguments = {"warmup_steps": 0, "every": 1, "copies": 0, **arguments}
    made = GrowingSet(3, 2, memory=VoteMemory(0.0, 0.8, 1), **arguments)
    made.begin(images, math.inf)
    return made


def test_the_mean_over_batches_of_both_streams_is_that_over_the_grown_set() -> None:
    """L has 6 images, of which each batch has 3; U has 8, of which each batch has 4, and 5 of them are accepted."""
    counts, labels = torch.tensor([3, 2, 1]), torch.tensor([0, 1, 0, 2, 0, 1])
    made = grown(8)
    own = torch.tensor([0, 1, 1, 2, 0, 0, 0, 0])
    made.memory.vote(torch.arange(8), own, torch.tensor([1, 1, 1, 1, 1, 0, 0, 0]).bool())
    made.memory.close()
    values = torch.arange(14.0) ** 2  # a loss for each image
    total, weight = torch.zeros(()), torch.zeros(())
    for start in range(2):
        rows, index = slice(3 * start, 3 * start + 3), torch.arange(4 * start, 4 * start + 4)
        known = made.known(labels[rows], index, counts, 0.1)
        assert known.labels[3:].tolist() == own[index].tolist() and known.weights[3:].tolist() == [
            2.0 * (i < 5) for i in index
        ]
        total += (known.weights * torch.cat([values[rows], values[6 + index]])).sum()
        weight += known.weights.sum()
    share, labeled, accepted = 5 / 11, values[:6].mean(), values[6:11].mean()
    assert (total / weight).item() == pytest.approx(((1 - share) * labeled + share * accepted).item())
    assert (total / weight).item() == pytest.approx(values[:11].mean().item())
    assert weight.item() == 2 * 11  # each batch stands for the whole set, in the mean


def test_counts_follow_at_the_ends_of_windows_after_the_warmup() -> None:
    made, counts = grown(4, warmup_steps=3, every=2, copies=10), torch.tensor([8, 4, 2])
    seen = []
    for _ in range(7):
        known = made.known(torch.tensor([0, 1, 2]), torch.arange(4), counts, 0.1)
        if not made.warms_up:
            made.memory.vote(torch.arange(4), torch.tensor([2, 2, 1, 0]), torch.tensor([1, 1, 1, 0]).bool())
        made.end_step(torch.ones(7, 2), known, counts)
        seen.append((made.warms_up, made.accepted.tolist(), made.copies.tolist()))
    before, after = ([0, 0, 0], [10, 10, 10]), ([0, 1, 2], [6, 10, 12])  # N = (8, 5, 4)
    assert seen == [(True, *before)] * 2 + [(False, *before)] * 2 + [(False, *after)] * 3


def test_a_training_that_would_never_accept_an_image_is_refused() -> None:
    made = grown(4, warmup_steps=3, every=2)
    made.begin(4, 6)
    with pytest.raises(ValueError, match="warmup_steps and every are 5 together, and the training has 5 steps"):
        made.begin(4, 5)


def test_each_draw_of_a_copy_has_its_share_of_the_copies() -> None:
    made = grown(4, copies=2)
    made.copies.copy_(torch.tensor([0.0, 2.0, 5.0]))
    expected: Tensor = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 2.5, 2.5]])
    assert torch.equal(made.copy_weights(), expected)
