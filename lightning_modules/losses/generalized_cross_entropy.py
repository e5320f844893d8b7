"""Generalized cross-entropy (Zhang and Sabuncu 2018, arXiv 1805.07836)."""

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_positive_share
from tailmatch.lightning_modules.losses.base import ClassificationLoss


class GeneralizedCrossEntropy(ClassificationLoss):
    """Generalized cross-entropy for noisy labels, `(1 - p_y^q) / q`.

    Equation 6 of the paper. It lies between cross-entropy (q towards 0) and mean absolute error (q = 1). The paper's
    truncated form, which drops samples with `p_y <= 0.5` after 40 epochs, is not included.

    Args:
        q: Exponent in (0, 1]; 0.7 in all the paper's experiments.

    Raises:
        SettingsError: `q` lies outside (0, 1].
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        check_positive_share("q", q, " (towards 0 it is CrossEntropy)")
        self.q = q

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        cross_entropy = functional.cross_entropy(logits, target, reduction="none")
        return -torch.expm1(-self.q * cross_entropy) / self.q
