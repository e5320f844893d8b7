"""Cross-entropy."""

from torch import Tensor
from torch.nn import functional

from lightning_modules.arguments import check_share
from lightning_modules.losses.base import ClassificationLoss


class CrossEntropy(ClassificationLoss):
    """`-sum_k q_k log p_k` with `q = (1 - e) onehot(y) + e / K` (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    Class weights are those of the sample's own class, also in the smoothed part (torch's `cross_entropy` weighs
    every class of it by its own).

    Args:
        label_smoothing: e, in [0, 1].
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
