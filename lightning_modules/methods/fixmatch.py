"""FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.views import StrongView, View, WeakView


class FixMatch(SemiSupervisedClassifier):
    r"""Confident predictions on a weak view teach strong views of the same image.

    With `q = softmax(logits(weak))` sharpened and refined, and `p` the prediction on a strong view:

        loss = CE(labeled) + lambda_u * mean(1[max q >= threshold] * CE(argmax q, p))

    Defaults are the paper's for CIFAR (table 4; mu = 7 is the data module's `unlabeled_ratio`).

    The weak view passes through the network without gradient and apart from the other images, as in
    bbuing9/DARP `training_functions.py`: half the cost of the authors' joint pass, in which no gradient
    flows from it either. BatchNorm therefore normalizes the weak batch by its own statistics, and running
    statistics see both passes, weak batch first; google-research/fixmatch interleaves labeled, weak and
    strong images through one pass.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        threshold: tau; pseudo-labels with a refined maximum below it are not used.
        lambda_u: Weight of the unlabeled loss.
        label_smoothing: Smoothing of labeled and pseudo-label targets (Smoothed-FixMatch).
        strong_views: Strong views of each unlabeled image; bbuing9/DARP uses 2.
        weak: Weak view, of labeled and unlabeled images.
        strong: Strong view.
        **kwargs: The arguments of `SemiSupervisedClassifier`; its temperature matters to the threshold and to
            refiners only.
    """

    progress_bar = ("loss", "selected")

    def __init__(
        self,
        num_classes: int,
        *,
        threshold: float = 0.95,
        lambda_u: float = 1.0,
        label_smoothing: float = 0.0,
        strong_views: int = 1,
        weak: View | None = None,
        strong: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_share("threshold", threshold)
        check_share("label_smoothing", label_smoothing)
        check_at_least("strong_views", strong_views, 1)
        self.threshold = threshold
        self.lambda_u = lambda_u
        self.label_smoothing = label_smoothing
        self.strong_views = strong_views
        self.weak = weak or WeakView()
        self.strong = strong or StrongView()

    def make_views(self, batch: Batch) -> Batch:
        """Weak views of both streams, strong views of the unlabeled one."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled["weak"] = self.weak(labeled["image"])
        unlabeled["weak"] = self.weak(unlabeled["image"])
        unlabeled["strong"] = [self.strong(unlabeled["image"]) for _ in range(self.strong_views)]
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            probs = self.network(unlabeled["weak"]).float().softmax(dim=1)
            probs = self.pseudo_labels(probs, unlabeled["index"])
            confidence, pseudo_label = probs.max(dim=1)
            selected = self.select(probs).float()

        logits = self.network(torch.cat([labeled["weak"], *unlabeled["strong"]])).float()
        labeled_logits, strong_logits = logits.split([len(labeled["weak"]), len(logits) - len(labeled["weak"])])
        loss_labeled = self.cross_entropy(labeled_logits, labeled["target"]).mean()
        loss_strong = self.cross_entropy(strong_logits, pseudo_label.repeat(self.strong_views))
        loss_unlabeled = (loss_strong * selected.repeat(self.strong_views)).mean()
        loss = loss_labeled + self.lambda_u * loss_unlabeled
        self.track(
            loss=loss,
            loss_labeled=loss_labeled,
            loss_unlabeled=loss_unlabeled,
            selected=selected.mean(),
            confidence=confidence.mean(),
        )
        return loss

    def select(self, probs: Tensor) -> Tensor:
        """Those whose maximum reaches the threshold."""
        return probs.amax(dim=1) >= self.threshold

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Smoothed cross-entropy of each row, `[B]`, from `logits [B, K]` and `target int64 [B]`."""
        return functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
