"""MixMatch (Berthelot et al., NeurIPS 2019, arXiv 1905.02249)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tailmatch.lightning_modules.views import View, WeakView


class MixMatch(MixingClassifier):
    r"""Predictions averaged over views and sharpened teach mixtures of labeled and unlabeled images.

    With `q = sharpen(mean_k softmax(logits(view_k)))` refined, and all images mixed with each other (`mixing.py`):

        loss = CE(mixed labeled) + ramp * lambda_u * mean((softmax(logits(mixed unlabeled)) - mixed q)^2)

    the mean over images and classes. Defaults are the paper's for CIFAR-10 (section 4.1.2: 75 from lambda_u, 0.75
    from alpha). Batches are of as many unlabeled as labeled images (`unlabeled_ratio` 1 of the data module).

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        views: K, weak views of each unlabeled image.
        lambda_u: Weight of the unlabeled loss after the ramp-up.
        weak: Weak view, of labeled and unlabeled images.
        **kwargs: The arguments of `MixingClassifier`.
    """

    def __init__(
        self, num_classes: int, *, views: int = 2, lambda_u: float = 75.0, weak: View | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("views", views, 1)
        self.views = views
        self.lambda_u = lambda_u
        self.weak = weak or WeakView()

    def make_views(self, batch: Batch) -> Batch:
        """One weak view of the labeled stream, K of the unlabeled one."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled["weak"] = self.weak(labeled["image"])
        unlabeled["weak"] = [self.weak(unlabeled["image"]) for _ in range(self.views)]
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad(), self.side_pass():
            logits = [self.network(view).float() for view in unlabeled["weak"]]
        loss, parts = self.mixed_loss(labeled, unlabeled, logits)
        self.track(loss=loss, **parts)
        return loss

    def mixed_loss(
        self, labeled: dict[str, Any], unlabeled: dict[str, Any], view_logits: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """MixMatch's loss `[]` and its parts, given the logits `[U, K]` of each unlabeled view."""
        with torch.no_grad():
            probs = torch.stack([logits.softmax(dim=1) for logits in view_logits]).mean(dim=0)
            target = self.pseudo_labels(probs, unlabeled["index"])
        logits, mixed, unlabeled_logits, unlabeled_mixed = self.mixed_logits(
            labeled["weak"], labeled["target"], unlabeled["weak"], target
        )
        loss_labeled = functional.cross_entropy(logits, mixed)
        loss_unlabeled = functional.mse_loss(unlabeled_logits.softmax(dim=1), unlabeled_mixed)
        loss = loss_labeled + self.ramp() * self.lambda_u * loss_unlabeled
        confidence = target.amax(dim=1).mean()
        return loss, {"loss_labeled": loss_labeled, "loss_unlabeled": loss_unlabeled, "confidence": confidence}
