"""Ranks of classes by hand, and under a permutation."""

from typing import Any

import pytest
import torch

from tailmatch.datamodules.splitting.class_ranks import arranged, class_ranks


def test_ranks_by_hand_and_ties_by_number() -> None:
    assert class_ranks(torch.tensor([5, 90, 20])).tolist() == [2, 0, 1]
    assert class_ranks(torch.tensor([0.1, 0.4, 0.4, 0.1])).tolist() == [2, 0, 1, 3]


def test_permuted_counts_have_permuted_ranks() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        counts, order = torch.randperm(50, generator=random)[:9], torch.randperm(9, generator=random)
        assert torch.equal(class_ranks(counts[order]), class_ranks(counts)[order])


@pytest.mark.parametrize("profile", ["consistent", "reversed", "middle", "head-tail"])
def test_profiles_follow_the_rank_of_a_class_and_not_its_number(profile: Any) -> None:
    falling, labeled = [90, 80, 70, 60, 50], [500, 400, 300, 200, 100]
    order = [3, 0, 4, 1, 2]
    by_number = arranged(falling, profile, labeled)
    assert arranged(falling, profile, [labeled[k] for k in order]) == [by_number[k] for k in order]
    assert sorted(by_number, reverse=True) == falling
