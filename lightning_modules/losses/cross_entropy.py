"""Cross-entropy."""

from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_share
from tailmatch.lightning_modules.losses.base import ClassificationLoss, weighted_mean


class CrossEntropy(ClassificationLoss):
    """Cross-entropy with label smoothing, `-sum_k q_k log p_k` with `q = (1 - e) onehot(y) + e / K`.

    Szegedy et al. 2016 (arXiv 1512.00567), section 7. The class weight of a sample is that of its own class, in the
    smoothed part too (torch's `cross_entropy` weighs each class of that part by its own weight). `mean` also accepts
    probs `[B, K]` as targets: weights and losses are then expectations over a class drawn from the row, so that one-hot
    rows are equivalent to their classes.

    Args:
        label_smoothing: Share e of the label that is spread over all classes, in [0, 1].

    Raises:
        SettingsError: `label_smoothing` lies outside [0, 1].
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)

    def mean(
        self,
        logits: Tensor,
        target: Tensor,
        class_weights: Tensor | None = None,
        weights: Tensor | None = None,
        normalized: bool = True,
    ) -> Tensor:
        """See `ClassificationLoss.mean`; `target` is `int64 [B]` or probs `[B, K]`."""
        if target.ndim == 1:
            return super().mean(logits, target, class_weights, weights, normalized)
        losses = -logits.log_softmax(dim=1)
        losses = (1 - self.label_smoothing) * losses + self.label_smoothing * losses.mean(dim=1, keepdim=True)
        shares = target if class_weights is None else target * class_weights
        shares = shares if weights is None else shares * weights[:, None]
        return weighted_mean(losses, shares, normalized)
