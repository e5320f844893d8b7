"""MixMatch (Berthelot et al., NeurIPS 2019, arXiv 1905.02249)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_count
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.views import View, WeakView


class MixMatch(MixingClassifier):
    r"""Mixup of labeled and unlabeled images, whose pseudo-labels are averaged over views and sharpened.

    With the refined `q = sharpen(mean_k softmax(logits(view_k)))`, and all images mixed with each other
    (`MixingClassifier`):

        loss = CE(mixed labeled) + ramp * lambda_u * mean((softmax(logits(mixed unlabeled)) - mixed q)^2)

    where the mean is over images and classes. The defaults are the paper's for CIFAR-10 (section 4.1.2: lambda_u = 75,
    alpha = 0.75). The paper's batches have as many unlabeled as labeled images: the data module's `unlabeled_ratio` of
    1.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        views: Number of weak views of each unlabeled image, at least 1.
        lambda_u: Weight of the unlabeled loss after the ramp-up.
        weak: Weak view of labeled and unlabeled images; None is `WeakView()`.
        **kwargs: Other arguments of `MixingClassifier`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self, num_classes: int, *, views: int = 2, lambda_u: float = 75.0, weak: View | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_count("views", views)
        check_at_least("lambda_u", lambda_u, 0)
        self.views = views
        self.lambda_u = lambda_u
        self.weak = weak or WeakView()

    def make_views(self, batch: Batch) -> Batch:
        """Make one weak view of each labeled image, and several of each unlabeled image."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled["weak"] = self.weak(labeled["image"])
        unlabeled["weak"] = [self.weak(unlabeled["image"]) for _ in range(self.views)]
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad(), self.side_pass():
            logits = [self.mixing_logits(view).float() for view in unlabeled["weak"]]
        loss, parts = self.mixed_loss(labeled, unlabeled, logits)
        self.track(loss=loss, **parts)
        return loss

    def mixed_loss(
        self, labeled: dict[str, Any], unlabeled: dict[str, Any], view_logits: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute MixMatch's loss `[]` and its parts, given the logits `[U, K]` of each unlabeled view."""
        with torch.no_grad():
            probs = torch.stack([logits.softmax(dim=1) for logits in view_logits]).mean(dim=0)
            target, _ = self.pseudo_labels(probs, unlabeled["index"])
        logits, mixed, unlabeled_logits, unlabeled_mixed = self.mixed_logits(
            labeled["weak"], labeled["target"], unlabeled["weak"], target
        )
        unlabeled_logits = shifted(unlabeled_logits, self.unlabeled_shift())
        loss_labeled = functional.cross_entropy(shifted(logits, self.labeled_shift()), mixed)
        loss_unlabeled = functional.mse_loss(unlabeled_logits.softmax(dim=1), unlabeled_mixed)
        loss = loss_labeled + self.ramp() * self.lambda_u * loss_unlabeled
        confidence = target.amax(dim=1).mean()
        return loss, {"loss_labeled": loss_labeled, "loss_unlabeled": loss_unlabeled, "confidence": confidence}
