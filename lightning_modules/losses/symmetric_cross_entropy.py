"""Symmetric cross-entropy (Wang et al. 2019, arXiv 1908.06112)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.losses.base import ClassificationLoss

LOG_ZERO = math.log(1e-4)
"""A, which stands for log 0: the authors clip the one-hot target at 1e-4 (`loss.py` of their repository)."""


class SymmetricCrossEntropy(ClassificationLoss):
    """`alpha * CE(target, p) + beta * CE(p, target)`, for noisy labels.

    The reverse part, `-sum_k p_k log q_k` with `log 0 = A`, is `-A (1 - p_y)`: it has an upper bound, so that a wrong
    label cannot pull without limit. Source: YisenWang/symmetric_cross_entropy_for_noisy_labels `loss.py` and
    `train_models.py`. There p is clipped at 1e-7 too, which limits CE to 16.1; here it is not.

    Args:
        alpha: Weight of cross-entropy, at least 0; the authors': 0.1 on CIFAR-10, 6 on CIFAR-100, 0.01 on MNIST.
        beta: Weight of reverse cross-entropy, at least 0; the authors': 1 on CIFAR-10 and MNIST, 0.1 on CIFAR-100.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0) -> None:
        super().__init__()
        check_at_least("alpha", alpha, 0)
        check_at_least("beta", beta, 0)
        if alpha == beta == 0:
            raise SettingsError("alpha and beta are both 0; one must be above 0")
        self.alpha = alpha
        self.beta = beta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        cross_entropy = functional.cross_entropy(logits, target, reduction="none")
        reverse = LOG_ZERO * torch.expm1(-cross_entropy)
        return self.alpha * cross_entropy + self.beta * reverse
