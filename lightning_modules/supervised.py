"""Supervised training on the labeled stream: the baseline, and losses for long tails and noisy labels."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.arguments import check_at_least
from lightning_modules.classifier import ImageClassifier
from lightning_modules.image_module import Batch
from lightning_modules.losses import ClassificationLoss, ClassWeights, CrossEntropy
from lightning_modules.views import WeakView


class Supervised(ImageClassifier):
    """A loss on labeled images alone, or on mixtures of them.

    Args:
        loss: The loss; None is `CrossEntropy()`.
        class_weights: Weights of the classes in the loss, and from when on; None weighs all images equally.
        mixup: alpha of mixup (Zhang et al. 2018, arXiv 1710.09412); 0 for none. bbuing9/DARP's base classifier
            mixes with `max(l, 1 - l)`, `l` from Beta(alpha, alpha), one for the batch.
        view: View of the labeled images; None is the weak view.
        **kwargs: The arguments of `ImageClassifier`.
    """

    label_weights: Tensor

    def __init__(
        self,
        loss: ClassificationLoss | None = None,
        class_weights: ClassWeights | None = None,
        mixup: float = 0.0,
        view: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_at_least("mixup", mixup, 0)
        self.loss = loss or CrossEntropy()
        self.class_weights = class_weights
        self.mixup = mixup
        self.view = view or WeakView()
        self.register_buffer("label_weights", torch.ones(self.num_classes), persistent=False)

    def setup(self, stage: str) -> None:
        """Give the labeled counts to the loss and to the class weights too."""
        super().setup(stage)
        if stage != "fit":
            return
        self.loss.adapt(self.class_counts, self.network.head)
        if self.class_weights is not None:
            self.class_weights.check(self)
            self.label_weights = self.class_weights.weights(self.class_counts)

    def make_views(self, batch: Batch) -> Batch:
        """One view of the labeled stream."""
        batch["labeled"]["weak"] = self.view(batch["labeled"]["image"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        images, target = batch["labeled"]["weak"], batch["labeled"]["target"]
        active = self.class_weights is not None and self.class_weights.active(self)
        class_weights = self.label_weights if active else None
        if self.mixup:
            share, partner = mixup_partners(len(target), self.mixup)
            partner = partner.to(target.device, non_blocking=True)
            logits = self.network(share * images + (1 - share) * images[partner]).float()
            own = self.loss.mean(logits, target, class_weights)
            loss = share * own + (1 - share) * self.loss.mean(logits, target[partner], class_weights)
        else:
            loss = self.loss.mean(self.network(images).float(), target, class_weights)
        self.track(loss=loss)
        return loss


def mixup_partners(size: int, alpha: float) -> tuple[float, Tensor]:
    """Share of the own image, in [1/2, 1], and each image's partner, `int64 [size]`, drawn on the host."""
    concentration = torch.tensor(alpha)
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    return max(share, 1 - share), torch.randperm(size)
