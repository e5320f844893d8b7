"""The auxiliary balanced classifier of ABC (Lee et al., NeurIPS 2021, arXiv 2110.10368), beside any method."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_share
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.views.base import to_device


class BalancedHead(SemiSupervisedClassifier):
    r"""A second head on the same features, with a loss in which all classes count alike, beside the loss of a method.

    The method trains the head `standard`, as it would have trained the network's. The network's own head a is the
    balanced one, which is evaluated. With `q = softmax(a(weak))`, which is soft and has no gradient, its class y', the
    labeled counts n and the strong views s of an image:

        balanced = mean(Bernoulli(n_min / n_y) * CE(a(labeled), y))
                   + sum over s of mean(1[max q >= threshold] * Bernoulli(1 - t (1 - n_min / n_y')) * CE(a(s), q))

    Means are over all images of the batch, not over those that are drawn. An unlabeled image is drawn once for all its
    strong views. t rises from 0 to 1 during the training (LeeHyuck/ABC `ABCfix.py`, `ABCremix.py`). Gradients of both
    losses reach the backbone.

    Departures: the authors' t is the epoch over 500, and here the step over the number of steps. They take the last
    class as the smallest, and this takes the smallest count.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        balanced_threshold: Confidence threshold in [0, 1] of the balanced head's pseudo-labels.
        draw_images: Whether images are drawn by their probability, as by the authors, or weighted by it. The latter has
            the same expectation, and less noise.
        **kwargs: Other arguments of the method.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    balanced_evaluation = True

    def __init__(
        self, num_classes: int, *, balanced_threshold: float = 0.95, draw_images: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_share("balanced_threshold", balanced_threshold)
        self.balanced_threshold = balanced_threshold
        self.draw_images = draw_images
        self.standard = nn.Linear(self.network.feature_dim, num_classes)

    def setup(self, stage: str) -> None:
        """Take what `ImageClassifier.setup` takes.

        Raises:
            SettingsError: A class has no labeled image, so that no image of another class would be drawn.
        """
        super().setup(stage)
        if stage == "fit":
            check_every_class(type(self).__name__, self.class_counts)

    def balanced_loss(
        self, labeled_logits: Tensor, target: Tensor, weak_logits: Tensor, strong_logits: Sequence[Tensor]
    ) -> Tensor:
        """Compute the loss `[]` of the balanced head.

        Args:
            labeled_logits: Logits of the balanced head for the labeled images, `float32 [B, K]`.
            target: Classes of the labeled images, `int64 [B]`.
            weak_logits: Logits of the balanced head for the weak views, `float32 [U, K]`, without gradient.
            strong_logits: Logits of the balanced head for each strong view of the unlabeled images, `float32 [U, K]`.
        """
        progress = self.trainer.global_step / self.total_steps()
        pseudo_label = weak_logits.softmax(dim=1)
        confidence, label = pseudo_label.max(dim=1)
        weights = self._drawn(shares_of_smallest(self.class_counts, 1.0)[target])
        unlabeled_weights = self._drawn(shares_of_smallest(self.class_counts, progress)[label])
        unlabeled_weights = unlabeled_weights * (confidence >= self.balanced_threshold)
        loss = (weights * functional.cross_entropy(labeled_logits, target, reduction="none")).mean()
        for logits in strong_logits:
            losses = functional.cross_entropy(logits, pseudo_label, reduction="none")
            loss = loss + (unlabeled_weights * losses).mean()
        return loss

    def _drawn(self, probability: Tensor) -> Tensor:
        """Draw 1 or 0 for each image by its probability `[N]`, or return the probability itself."""
        if not self.draw_images:
            return probability
        return (to_device(torch.rand(len(probability)), probability.device) < probability).float()


def shares_of_smallest(counts: Tensor, progress: float) -> Tensor:
    """Compute the probability `1 - progress (1 - n_min / n_k)`, `float32 [K]`, to draw an image of each class.

    Args:
        counts: Labeled images of each class, `[K]`, all positive.
        progress: 1 for labeled images; for unlabeled images, the share in [0, 1] of the training that is done.
    """
    return 1 - progress * (1 - counts.min() / counts)
