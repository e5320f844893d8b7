"""Noisy copies of features, more of them for rare classes, farther away for dispersed ones (CPG, arXiv 2510.03993)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules.training.distributed import sum_over_processes


class ClassSpread(nn.Module):
    """How far copies lie from the features of each class, by the features of a window of steps.

    Args:
        num_classes: Number of classes K.
        feature_dim: Size D of the features.

    Attributes:
        radii: `float32 [K]`, see `spread`; 1/K before the first window ends.
        sums: `float32 [K, 2 D + 1]`, sums over the images of each class: features, those of length 1, and weights.
    """

    radii: Tensor
    sums: Tensor

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        super().__init__()
        self.register_buffer("radii", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("sums", torch.zeros(num_classes, 2 * feature_dim + 1))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Add the features of a step, `float32 [B, D]`, of all processes; call it on all of them.

        Args:
            features: Features `float32 [B, D]`.
            labels: Classes `int64 [B]`.
            weights: Weights of the images, `float32 [B]`.
        """
        rows = torch.cat([features, functional.normalize(features), torch.ones_like(features[:, :1])], dim=1)
        with torch.autocast(features.device.type, enabled=False):
            hot = functional.one_hot(labels, len(self.sums)) * weights[:, None]
            self.sums += sum_over_processes(hot.T @ rows)

    @torch.no_grad()
    def close(self) -> None:
        """End the window: compute the radii, and begin the next window without features."""
        self.radii.copy_(spread(self.sums))
        self.sums.zero_()


def spread(sums: Tensor) -> Tensor:
    """Compute radii `r_k ~ 1 / s_k` of sum 1, `float32 [K]`, where s_k is the mean of `(cos(f, mean f) + 1) / 2`.

    The mean is over the images of class k; a class without any has s_k = 1.

    Args:
        sums: `float32 [K, 2 D + 1]` of `ClassSpread`.
    """
    total, directions, count = sums.tensor_split([sums.shape[1] // 2, sums.shape[1] - 1], dim=1)
    cosine = (functional.normalize(total) * directions).sum(dim=1) / count[:, 0]
    inverse = torch.where(count[:, 0] > 0, 2 / (cosine + 1), 1)
    return inverse / inverse.sum()


def copies_of(counts: Tensor, most: int) -> Tensor:
    """Compute how many copies each image of a class has, `floor(most n / n_k)`, `float32 [K]`.

    Args:
        counts: Class counts `[K]`, all positive.
        most: Copies of an image of the class of count n, which has rank floor(K / 3) among the counts, the least first.
    """
    return (most * counts.sort().values[len(counts) // 3] / counts).floor()


def noisy(features: Tensor, radii: Tensor, copies: int) -> Tensor:
    """Draw copies `f + r e f / |f|` of features, `float32 [B, copies, D]`, with e from N(0, 1) in each place.

    Args:
        features: Features `float32 [B, D]`.
        radii: The r of each row, `float32 [B]`.
        copies: Number of copies of each row.
    """
    noise = torch.randn(len(features), copies, features.shape[1], device=features.device)
    return features[:, None] + radii[:, None, None] * noise * functional.normalize(features)[:, None]
