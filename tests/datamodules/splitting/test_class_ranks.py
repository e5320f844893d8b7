"""Ranks of classes by hand, and under a permutation."""

import torch

from tailmatch.datamodules.splitting.class_ranks import class_ranks


def test_ranks_by_hand_and_ties_by_number() -> None:
    assert class_ranks(torch.tensor([5, 90, 20])).tolist() == [2, 0, 1]
    assert class_ranks(torch.tensor([0.1, 0.4, 0.4, 0.1])).tolist() == [2, 0, 1, 3]


def test_permuted_counts_have_permuted_ranks() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        counts, order = torch.randperm(50, generator=random)[:9], torch.randperm(9, generator=random)
        assert torch.equal(class_ranks(counts[order]), class_ranks(counts)[order])
