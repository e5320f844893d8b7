"""Selection of the pseudo-labels of an unlabeled set that are used in the loss."""

import torch
from torch import Tensor


def select(label: Tensor, confidence: Tensor, threshold: float, top_k_per_class: int | None) -> Tensor:
    """Select the most confident pseudo-labels of each class, as `bool [N]`; ties go to the first in the set.

    Args:
        label: Pseudo-labels, `int64 [N]`, -1 for none.
        confidence: Probability of the pseudo-labels, `float32 [N]`.
        threshold: Smallest confidence of a selected pseudo-label.
        top_k_per_class: Largest number of selected pseudo-labels of each class; None for no limit.
    """
    selected = (label >= 0) & (confidence >= threshold)
    if top_k_per_class is None:
        return selected
    order = torch.where(selected, confidence, -1).argsort(descending=True, stable=True)
    order = order[label[order].argsort(stable=True)]  # by class, then by confidence
    sizes = torch.bincount(label[order] + 1)
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.empty_like(label)
    rank[order] = torch.arange(len(label)) - starts
    return selected & (rank < top_k_per_class)
