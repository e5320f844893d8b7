"""Symmetric cross-entropy (Wang et al. 2019, arXiv 1908.06112)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.losses.base import ClassificationLoss

LOG_ZERO = math.log(1e-4)
"""The value A used for log 0: the authors clip the one-hot target at 1e-4 (`loss.py` of their repository)."""


class SymmetricCrossEntropy(ClassificationLoss):
    """Symmetric cross-entropy for noisy labels, `alpha * CE(target, p) + beta * CE(p, target)`.

    The reverse part, `-sum_k p_k log q_k` with `log 0 = A`, is `-A (1 - p_y)`. It is bounded, so that the influence of
    a wrong label is limited. Source: YisenWang/symmetric_cross_entropy_for_noisy_labels `loss.py` and
    `train_models.py`. That code also clips p at 1e-7, which limits CE to 16.1; this class does not.

    Args:
        alpha: Weight of cross-entropy, at least 0; the authors use 0.1 on CIFAR-10, 6 on CIFAR-100, 0.01 on MNIST.
        beta: Weight of reverse cross-entropy, at least 0; the authors use 1 on CIFAR-10 and MNIST, 0.1 on CIFAR-100.

    Raises:
        SettingsError: A weight is negative, or both are 0.
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
