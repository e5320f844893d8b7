"""Supervised training on the labeled images: the baseline, with losses for long tails and noisy labels."""

from typing import Any

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses import ClassificationLoss, ClassWeights, CrossEntropy
from tailmatch.lightning_modules.views import View, WeakView
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.views.mixup import mixup_partners


class Supervised(ImageClassifier):
    """Supervised training on the labeled images alone, or on mixtures of them.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        loss: Classification loss; None is `CrossEntropy()`.
        class_weights: Weights of the classes in the loss, and the time from which they apply; None weighs all images
            equally.
        mixup: Parameter alpha, at least 0, of mixup (Zhang et al. 2018, arXiv 1710.09412); 0 for no mixup. As in
            bbuing9/DARP's base classifier, one weight `max(l, 1 - l)`, with `l` from Beta(alpha, alpha), is drawn for
            the batch.
        view: View of the labeled images; None is `WeakView()`.
        **kwargs: Other arguments of `ImageClassifier`.

    Raises:
        SettingsError: `mixup` is negative.
    """

    label_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        loss: ClassificationLoss | None = None,
        class_weights: ClassWeights | None = None,
        mixup: float = 0.0,
        view: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("mixup", mixup, 0)
        self.loss = loss or CrossEntropy()
        self.balanced_evaluation = self.loss.balances
        self.class_weights = class_weights
        self.mixup = mixup
        self.view = view or WeakView()
        self.register_buffer("label_weights", torch.ones(self.num_classes), persistent=False)

    def setup(self, stage: str) -> None:
        """Pass the labeled class counts to the loss and to the class weights, besides `ImageClassifier.setup`."""
        super().setup(stage)
        if stage != "fit":
            return
        if self.class_weights is not None:
            self.class_weights.check(self)
        self.adapt_loss(self.class_counts)

    def adapt_loss(self, class_counts: Tensor) -> None:
        """Pass class counts `int64 [K]` of the training images to the loss and to the class weights."""
        self.loss.adapt(class_counts, self.network.head)
        if self.class_weights is not None:
            self.label_weights = self.class_weights.weights(class_counts)

    def make_views(self, batch: Batch) -> Batch:
        """Make one view of each labeled image."""
        batch["labeled"]["weak"] = self.view(batch["labeled"]["image"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        loss = self.mean_loss(batch["labeled"]["weak"], batch["labeled"]["target"])
        self.track(loss=loss)
        return loss

    def mean_loss(self, images: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Compute the mean loss `[]` of images or, with `mixup`, of their mixtures.

        Args:
            images: Images `[B, 3, H, W]` in [0, 1].
            target: Classes `int64 [B]`; with `CrossEntropy`, also probabilities `[B, K]`.
            weights: Weights `[B]` of the images in the loss, times class weights; None weighs all images equally.
        """
        if not self.mixup:
            return self.criterion(self.network(images).float(), target, weights)
        weight, partner = mixup_partners(len(target), self.mixup)  # one weight for all
        share, partner = float(weight[0]), to_device(partner, target.device)
        logits = self.network(torch.lerp(images[partner], images, share)).float()
        own = self.criterion(logits, target, weights)
        other = self.criterion(logits, target[partner], None if weights is None else weights[partner])
        return share * own + (1 - share) * other

    def criterion(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Compute the mean loss `[]` of `logits [B, K]`, with class weights if they are active; see `mean_loss`."""
        if self.class_weights is None or not self.class_weights.active(self):
            return self.loss.mean(logits, target, None, weights)
        return self.loss.mean(logits, target, self.label_weights, weights, self.class_weights.normalized)
