"""A head behind several BatchNorms of the last feature map, each of which is trained on images of other classes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassWiseHead(nn.Module):
    """The mean of a head's logits over several BatchNorms of the features.

    A method trains them on the feature map (`branches`), so that their running statistics are those of the map. As a
    network's head, `forward` normalizes the features, which are the mean of the map, by running statistics. The result
    is the mean of the normalized map.

    Args:
        head: Head that maps features `[B, channels]` to logits `[B, K]`.
        channels: Size of the features.
        branches: Number of BatchNorms.
    """

    def __init__(self, head: nn.Module, channels: int, branches: int) -> None:
        super().__init__()
        self.head = head
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(branches))

    def branches(self, feature_map: Tensor) -> list[Tensor]:
        """Compute the features `float32 [B, C]` of each branch from a feature map `[B, C, h, w]`."""
        return [norm(feature_map).float().mean(dim=(2, 3)) for norm in self.norms]

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, C]` to logits `[B, K]`, by running statistics in every mode."""
        return torch.stack([self.head(normalized(features, norm)) for norm in self.norms]).mean(dim=0)


def normalized(features: Tensor, norm: Any) -> Tensor:
    """Normalize features `[B, C]` by the running statistics of a BatchNorm2d."""
    return F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
