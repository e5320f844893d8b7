"""Mixup, and the order that interleaves labeled and unlabeled images: pure functions."""

import torch
from torch import Tensor


def mixup_partners(size: int, alpha: float, per_image: bool = False) -> tuple[Tensor, Tensor]:
    """Draw mixup (Zhang et al. 2018, arXiv 1710.09412) on the host.

    Args:
        size: Images.
        alpha: Of Beta(alpha, alpha), from which a weight l is drawn.
        per_image: A weight for each image, or one for all.

    Returns:
        `[size]` weight of the own image, max(l, 1 - l) as in MixMatch (equation 9), and `int64 [size]` partners, a
        permutation.
    """
    concentration = torch.tensor(alpha)
    weight = torch.distributions.Beta(concentration, concentration).sample((size if per_image else 1,))
    return torch.maximum(weight, 1 - weight).expand(size), torch.randperm(size)


def mixup(values: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    """`weight_i v_i + (1 - weight_i) v_partner(i)` of `[N, ...]` values: `[N]` weights, `int64 [N]` partners."""
    return torch.lerp(values[partner], values, weight.view(-1, *[1] * (values.ndim - 1)))


def interleaved_order(chunks: int, size: int) -> Tensor:
    """Order that exchanges a part of the first chunk with a part of each other one: `int64 [chunks * size]`.

    Rows are in `chunks` blocks of `size`. The first block is cut into as many parts as there are chunks, as equal as
    can be with the larger ones last, and its part c changes places with the part at the same place of chunk c. It is
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
