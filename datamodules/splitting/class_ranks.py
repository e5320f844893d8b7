"""Ranks of classes by frequency, for what depends on how frequent a class is and not on its number."""

import torch
from torch import Tensor


def class_ranks(class_counts: Tensor) -> Tensor:
    """Rank classes by frequency: 0 is the most frequent; of equal ones, the first. Nothing waits for the device.

    Permuted counts have permuted ranks, except among equal counts.

    Args:
        class_counts: Number of images of each class, or shares, `[K]`.

    Returns:
        Ranks `int64 [K]`, each of 0 to K - 1 once.
    """
    order = torch.argsort(class_counts, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    return ranks
