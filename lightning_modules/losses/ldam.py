"""The label-distribution-aware margin loss (Cao et al. 2019, arXiv 1906.07413)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.losses.base import ClassificationLoss, check_every_class
from tailmatch.lightning_modules.networks.network import NormalizedLinear


def ldam_margins(class_counts: Tensor, max_margin: float) -> Tensor:
    """Compute margins `max_margin * (min n / n_k)^(1/4)`, `float32 [K]`, of counts `n [K]` (equation 12)."""
    counts = class_counts.double()
    return (max_margin * (counts.min() / counts) ** 0.25).float()


def ldam(logits: Tensor, target: Tensor, margins: Tensor) -> Tensor:
    """Compute each sample's cross-entropy `[B]`, with the target's logit lowered by its margin (equation 13).

    Args:
        logits: Logits `[B, K]`.
        target: Classes `int64 [B]`.
        margins: Margins `[K]`, in units of the logits.
    """
    lowered = logits - functional.one_hot(target, logits.shape[1]) * margins
    return functional.cross_entropy(lowered, target, reduction="none")


class LDAM(ClassificationLoss):
    """Cross-entropy with a margin per class, wider for rarer classes: `CE(s (cos - m_y onehot(y)))`.

    The network needs a normalized head, whose `cosine_scale` s makes the logits `s cos`; s is 30 in LDAM-DRW
    `losses.py`. There, the loss multiplies by s, and the network's output is the cosine. Here, the head multiplies, so
    that logits mean the same outside of the loss: test loss, confidence and pseudo-labels are those of
    `softmax(s cos)`, while a softmax of cosines could not exceed 0.45 for ten classes. In units of the logits, margins
    are s m.

    It is usually combined with `DeferredReweighting` (LDAM-DRW).

    Args:
        max_margin: Margin of the rarest class in units of the cosine, at least 0; 0.5 in the paper and its code.

    Raises:
        SettingsError: `max_margin` is negative.
    """

    margins: Tensor

    def __init__(self, max_margin: float = 0.5) -> None:
        super().__init__()
        check_at_least("max_margin", max_margin, 0)
        self.max_margin = max_margin
        self.register_buffer("margins", torch.empty(0), persistent=False)

    def adapt(self, class_counts: Tensor, head: nn.Module) -> None:
        """Compute margins from the class counts and the scale of the head.

        Raises:
            SettingsError: The head is not normalized, or a class has no image.
        """
        if not isinstance(head, NormalizedLinear):
            raise SettingsError(
                f"LDAM needs a network with a normalized head, and this one's is {type(head).__name__}: set the "
                "network's cosine_scale (30 in the authors' code)"
            )
        check_every_class("LDAM", class_counts)
        self.margins = head.scale * ldam_margins(class_counts, self.max_margin)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return ldam(logits, target, self.margins)
