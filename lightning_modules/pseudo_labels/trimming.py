"""Which images are left out of a step by their last loss, as in DyTrim (ICLR 2026)."""

import torch
from torch import Tensor

from tailmatch.lightning_modules.training.distributed import place, sum_over_processes

UNSEEN = -1.0
"""Stands for the loss of an image that was in no step yet. Such an image stays."""


def sizes_of_rest(class_counts: Tensor, shares: Tensor) -> Tensor:
    """Compute how many images of each class stay, `[K]`: `floor(n_c (1 - r_c))`, at least one.

    Args:
        class_counts: Labeled class counts n, `[K]`.
        shares: Shares r of the classes in the bias, `[K]`, in [0, 1].
    """
    return (class_counts * (1 - shares) + 1e-4).floor().clamp(min=1)  # 10 * (1 - 0.1) may be 8.9999995


def largest_of_class(losses: Tensor, targets: Tensor, index: Tensor, sizes: Tensor) -> Tensor:
    """Tell (`bool [B]`) which images are among those of their class with the largest losses.

    Args:
        losses: Last losses of all labeled images `[N]`, or `UNSEEN`.
        targets: Classes of all labeled images, `int64 [N]`.
        index: Positions of the images of the step, `int64 [B]`.
        sizes: How many images of each class these are, `[K]`.
    """
    losses = torch.where(losses == UNSEEN, torch.inf, losses)
    same = targets == targets[index][:, None]
    larger = (losses > losses[index][:, None]) & same
    return larger.sum(dim=1) < sizes[targets[index]]


def at_least_mean(losses: Tensor, index: Tensor) -> Tensor:
    """Tell (`bool [B]`) which images have at least the mean of the last losses.

    Args:
        losses: Last losses of all unlabeled images `[N]`, or `UNSEEN`.
        index: Positions of the images of the step, `int64 [B]`.
    """
    seen = losses != UNSEEN
    mean = (losses * seen).sum() / seen.sum().clamp(min=1)
    return (losses >= mean)[index] | ~seen[index]


def mean_of_kept(losses: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
    """Compute `sum(w * l) / sum(kept)`, `[]`, over the images of all processes; 0 if none is kept.

    Args:
        losses: Losses `[B]`.
        weights: Weights `[B]`, 0 for an image that is left out.
        kept: Which images stay, or with which probability, `float32 [B]`.
    """
    count = sum_over_processes(kept.sum()) / place()[1]
    return (weights * losses).sum() / count.clamp(min=1e-12)
