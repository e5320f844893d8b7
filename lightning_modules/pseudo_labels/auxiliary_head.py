"""The auxiliary head of CPG, which trains features on all images and is not evaluated (arXiv 2510.03993)."""

from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.losses.base import weighted_mean
from tailmatch.lightning_modules.pseudo_labels.growing_set import Known, smoothed


class AuxiliaryHead(nn.Linear):
    """A linear head whose most probable class of a weak view is the target of the strong one, without a threshold."""

    def loss(
        self, features: Tensor, known: Known, shift: Tensor, strong_shift: Tensor | None, smoothing: float
    ) -> Tensor:
        """Compute the loss `[]`: the mean over the strong views, plus the weighted mean over the set's images.

        Args:
            features: Features `float32 [B + U + U, D]` of labeled images, of weak and of strong views.
            known: The labeled images and the weak views.
            shift: What is added to the logits of the set's images, `[K]`.
            strong_shift: What is added to those of the strong views, `[K]`; None for nothing.
            smoothing: What all targets leave to other classes, in [0, 1).
        """
        count = len(known.labels)
        logits, strong_logits = self(features).float().tensor_split([count])
        label = logits.detach()[-len(strong_logits) :].argmax(dim=1)
        target, strong_target = (smoothed(labels, logits.shape[1], smoothing) for labels in (known.labels, label))
        losses = functional.cross_entropy(logits + shift, target, reduction="none")
        loss_strong = functional.cross_entropy(shifted(strong_logits, strong_shift), strong_target)
        return loss_strong + weighted_mean(losses, known.weights)
