"""Ranks of classes by frequency, for what depends on how frequent a class is and not on its number."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Profile = Literal["consistent", "reversed", "middle", "head-tail"]
"""Which labeled rank has the most unlabeled images, and which the fewest; see `arranged`."""


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


def arranged(counts: Sequence[int], profile: Profile, labeled: Sequence[int]) -> list[int]:
    """Give falling counts to classes by the rank of their labeled counts.

    SimPro (Du et al., ICML 2024, arXiv 2402.13505; LeapLabTHU/SimPro `dataset/cifar.py`, `make_imb_data` with
    `flag_LT` 0, 1, 3 and 4), where classes are numbered by frequency.

    Args:
        counts: K counts, the largest first.
        profile: `consistent` leaves the order, `reversed` turns it round. `middle` has the largest counts in the middle
            ranks: of counts 0, 1, 2, ..., the even ones rising, then the odd ones falling. `head-tail` has them in the
            first and the last ranks: the odd ones falling, then the even ones rising.
        labeled: K labeled counts, in the order of the classes.

    Returns:
        K counts, in the order of the classes.

    Example:
        >>> arranged([9, 8, 7, 6, 5, 4], "middle", [60, 50, 40, 30, 20, 10])
        [5, 7, 9, 8, 6, 4]
        >>> arranged([9, 8, 7, 6, 5, 4], "head-tail", [60, 50, 40, 30, 20, 10])
        [8, 6, 4, 5, 7, 9]
    """
    even, odd = list(counts[::2]), list(counts[1::2])
    of_rank = {
        "consistent": list(counts),
        "reversed": list(counts[::-1]),
        "middle": even[::-1] + odd,
        "head-tail": odd + even[::-1],
    }[profile]
    return [of_rank[rank] for rank in class_ranks(torch.tensor(labeled)).tolist()]
