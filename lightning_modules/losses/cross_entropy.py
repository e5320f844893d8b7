"""Cross-entropy."""

from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_share
from tailmatch.lightning_modules.losses.base import ClassificationLoss, weighted_mean


class CrossEntropy(ClassificationLoss):
    """`-sum_k q_k log p_k` with `q = (1 - e) onehot(y) + e / K` (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    Class weights are those of the sample's own class, also in the smoothed part (torch's `cross_entropy` weighs
    every class of it by its own). `mean` also takes probs as targets, `[B, K]`: their weights and losses are the
    expectations of those of a class drawn from the row, so that one-hot rows mean the same as their classes.

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

    def mean(
        self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """See `ClassificationLoss.mean`; `target` is `int64 [B]` or probs `[B, K]`."""
        if target.ndim == 1:
            return super().mean(logits, target, class_weights, weights)
        losses = -logits.log_softmax(dim=1)
        losses = (1 - self.label_smoothing) * losses + self.label_smoothing * losses.mean(dim=1, keepdim=True)
        shares = target if class_weights is None else target * class_weights
        shares = shares if weights is None else shares * weights[:, None]
        return weighted_mean(losses, shares)
