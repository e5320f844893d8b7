"""Mixup, and the order that interleaves labeled and unlabeled images: pure functions."""

import torch
from torch import Tensor


def mixup_partners(size: int, alpha: float, per_image: bool = False) -> tuple[Tensor, Tensor]:
    """Draw weights and partners of mixup (Zhang et al. 2018, arXiv 1710.09412) on the host.

    Args:
        size: Number of images.
        alpha: Parameter of Beta(alpha, alpha), from which a weight l is drawn.
        per_image: Whether each image has its own weight; otherwise all share one.

    Returns:
        The weight of the image itself, `[size]`: max(l, 1 - l) as in MixMatch (equation 9); and the partners, a
        permutation `int64 [size]`.
    """
    concentration = torch.tensor(alpha)
    weight = torch.distributions.Beta(concentration, concentration).sample((size if per_image else 1,))
    return torch.maximum(weight, 1 - weight).expand(size), torch.randperm(size)


def mixup(values: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    """Compute `weight_i v_i + (1 - weight_i) v_partner(i)` of `values [N, ...]`, `weight [N]`, `partner int64 [N]`."""
    return torch.lerp(values[partner], values, weight.view(-1, *[1] * (values.ndim - 1)))


def interleaved_order(chunks: int, size: int) -> Tensor:
    """Return the order that exchanges a part of the first chunk with a part of each other one: `int64 [chunks * size]`.

    Rows are in `chunks` blocks of `size`. The first block is cut into as many parts as there are chunks, as equal as
    possible with the larger ones last, and its part c swaps places with the same part of chunk c. The permutation is
    its own inverse. (`interleave` of google-research/mixmatch `libml/layers.py`.)
    """
    position = torch.arange(size)
    smaller = chunks - size % chunks  # parts of size // chunks rows; the others have one more
    rest = position - smaller * (size // chunks)
    part = torch.where(rest < 0, position // max(1, size // chunks), smaller + rest // (size // chunks + 1))
    order = torch.arange(chunks * size).view(chunks, size)
    order[0] = part * size + position
    order[part, position] = torch.where(part > 0, position, order[0])
    return order.flatten()
