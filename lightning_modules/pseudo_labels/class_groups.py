"""Frequent, medium and rare classes by their ranks, for the experts of CPE and Meta-Expert."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tailmatch.datamodules.splitting.class_ranks import class_ranks


def branches_of(label: Tensor, class_counts: Tensor, cuts: Sequence[float]) -> Tensor:
    """Tell (1 or 0, `float32 [branches, B]`) which branches have the class of labels `int64 [B]`.

    Args:
        label: Classes.
        class_counts: Labeled class counts `[K]`.
        cuts: Share of the classes, the most frequent ones, that each branch leaves out.
    """
    rank = class_ranks(class_counts)[label]
    return torch.stack([(rank >= round(cut * len(class_counts))).float() for cut in cuts])


def groups_of(class_counts: Tensor, cuts: Sequence[float]) -> Tensor:
    """Tell (1 or 0, `float32 [groups, K]`) which classes each group has: those that the next branch leaves out."""
    branches = branches_of(torch.arange(len(class_counts), device=class_counts.device), class_counts, cuts)
    return branches - torch.cat([branches[1:], torch.zeros_like(branches[:1])])


def trusted(counts: Tensor, class_counts: Tensor) -> Tensor:
    """Compute the distribution kappa over the heads, `float32 [3]`, uniform if nothing was counted.

    Args:
        counts: Confident labels of each class, `float32 [K]`.
        class_counts: Labeled class counts `[K]`.
    """
    frequent = class_ranks(class_counts) < len(counts) // 2
    low, high = counts.masked_fill(~frequent, torch.inf).min(), counts.masked_fill(~frequent, 0).max()
    rare_low, rare_high = counts.masked_fill(frequent, torch.inf).min(), counts.masked_fill(frequent, 0).max()
    third = (rare_high > 2 * low) & (high < 2 * rare_low)
    second = (counts.max() < 2 * counts.min()) & ~third
    kappa = torch.stack([~(second | third), second, third]).float()
    return torch.where(counts.any(), kappa, torch.full_like(kappa, 1 / 3))
