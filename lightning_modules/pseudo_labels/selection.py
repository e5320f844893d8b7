"""Which pseudo-labels of an unlabeled set teach."""

import torch
from torch import Tensor


def select(label: Tensor, confidence: Tensor, threshold: float, top_k_per_class: int | None) -> Tensor:
    """Which pseudo-labels teach, `bool [N]`: of each class the most confident, of equal ones the first.

    Args:
        label: `int64 [N]`, -1 for none.
        confidence: `float32 [N]`.
        threshold: Least confidence.
        top_k_per_class: Most of a class; None for no limit.
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
