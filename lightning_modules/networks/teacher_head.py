"""A head that gives way to another in evaluation."""

import torch
from torch import Tensor, nn


class TeacherHead(nn.Module):
    """A trained head whose place another, which is not trained by gradients, takes in evaluation once it has begun.

    Args:
        head: Head that is trained, and evaluated before the other has begun.
        feature_dim: Size of the features.
        num_classes: Number of classes K.
    """

    began: Tensor

    def __init__(self, head: nn.Module, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.teacher = nn.Linear(feature_dim, num_classes).requires_grad_(False)
        self.student = head
        self.register_buffer("began", torch.zeros((), dtype=torch.bool))

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, D]` to logits `[B, K]`."""
        logits: Tensor = self.student(features)
        return logits if self.training else torch.where(self.began, self.teacher(features), logits)
