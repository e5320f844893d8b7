"""The focal loss (Lin et al. 2017, arXiv 1708.02002)."""

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.losses.base import ClassificationLoss, weighted_mean


def focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    """Compute `(1 - exp(-l))^gamma l` of cross-entropies `l` of any shape."""
    missing = -torch.expm1(-cross_entropy)
    smallest = torch.finfo(missing.dtype).tiny  # at 0, a power below 1 has no finite gradient
    return missing.clamp(min=smallest) ** gamma * cross_entropy


class Focal(ClassificationLoss):
    """The focal loss, `(1 - p_y)^gamma * -log p_y`: samples that are already classified well count less.

    Class weights follow the code of LDAM-DRW and imbalanced-semi-self (both `losses.py`): the weight multiplies the
    cross-entropy inside, so that a sample of weight w has the loss `(1 - p_y^w)^gamma * -w log p_y`, and the mean is
    over the number of samples. In the paper, the weight is outside the focal factor (equation 5).

    Args:
        gamma: Exponent of the focal factor, at least 0; 0 is cross-entropy. 1 in LDAM-DRW and imbalanced-semi-self; 2
            was the paper's best value, for detection.

    Raises:
        SettingsError: `gamma` is negative.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        check_at_least("gamma", gamma, 0)
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return focal(functional.cross_entropy(logits, target, reduction="none"), self.gamma)

    def mean(
        self,
        logits: Tensor,
        target: Tensor,
        class_weights: Tensor | None = None,
        weights: Tensor | None = None,
        normalized: bool = True,
    ) -> Tensor:
        """See `ClassificationLoss.mean`; class weights are used as `Focal` describes, and never normalized."""
        losses = focal(functional.cross_entropy(logits, target, weight=class_weights, reduction="none"), self.gamma)
        return losses.mean() if weights is None else weighted_mean(losses, weights, normalized)
