"""FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import PseudoLabelRefiner, SemiSupervisedClassifier, shifted
from tailmatch.lightning_modules.views import StrongView, View, WeakView
from tailmatch.lightning_modules.weightings import Weighting
from tailmatch.lightning_modules.weightings.base import THRESHOLD


class FixMatch(SemiSupervisedClassifier):
    r"""Consistency training: confident predictions on a weak view are the targets of strong views of the same image.

    With `q = softmax(logits(weak))` sharpened and refined, and `p` the prediction on a strong view:

        loss = CE(labeled) + lambda_u * mean(1[max q >= threshold] * CE(argmax q, p))

    The defaults are the paper's for CIFAR (table 4). The paper's mu = 7 is the data module's `unlabeled_ratio`.

    The weak views pass through the network separately and without gradient, as in bbuing9/DARP
    `training_functions.py`. This costs half of a joint pass, in which no gradient flows from the weak views either.
    BatchNorm therefore normalizes the weak views by their own statistics, and both passes update the running
    statistics, that of the weak views first. google-research/fixmatch interleaves labeled, weak and strong images in
    one pass.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        threshold: Confidence threshold tau in [0, 1]: a pseudo-label is used if its largest refined probability is at
            least tau.
        weighting: How much each pseudo-label counts, such as `CurriculumThresholds` of FlexMatch. None: fully, if it
            reaches the threshold.
        lambda_u: Weight of the unlabeled loss.
        label_smoothing: Label smoothing in [0, 1] of labels and pseudo-labels (Smoothed-FixMatch); 0 for none.
        soft_targets: Whether the target of a strong view is the whole refined distribution q, as in CDMAD and other
            successors of FixMatch, or its most probable class.
        strong_views: Number of strong views of each unlabeled image, at least 1; bbuing9/DARP uses 2.
        weak: Weak view of labeled and unlabeled images; None is `WeakView()`.
        strong: Strong view of unlabeled images; None is `StrongView()`.
        **kwargs: Other arguments of `SemiSupervisedClassifier`. Without `soft_targets`, the `temperature` only affects
            the comparison with the threshold, and refiners.

    Raises:
        SettingsError: An argument lies outside its domain, or has no use beside the others.
    """

    progress_bar = ("loss", "selected")

    def __init__(
        self,
        num_classes: int,
        *,
        threshold: float = THRESHOLD,
        weighting: Weighting | None = None,
        lambda_u: float = 1.0,
        label_smoothing: float = 0.0,
        soft_targets: bool = False,
        strong_views: int = 1,
        weak: View | None = None,
        strong: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_share("threshold", threshold)
        check_share("label_smoothing", label_smoothing)
        check_at_least("lambda_u", lambda_u, 0)
        check_count("strong_views", strong_views)
        self.threshold = threshold
        self.lambda_u = lambda_u
        self.label_smoothing = label_smoothing
        self.soft_targets = soft_targets
        self.strong_views = strong_views
        self.weak = weak or WeakView()
        self.strong = strong or StrongView()
        self.weighting = weighting
        if weighting is not None:
            if type(self).weigh is not FixMatch.weigh:
                raise SettingsError(f"{type(self).__name__} has weights of its own: leave weighting out")
            weighting.prepare(num_classes, threshold)
            if isinstance(weighting, PseudoLabelRefiner):
                self.add_refiner(weighting, before_sharpening=True)

    def setup(self, stage: str) -> None:
        """Tell the `weighting` of the data, besides `ImageClassifier.setup`."""
        super().setup(stage)
        if stage == "fit" and self.weighting is not None:
            self.weighting.check_length(self.trainer)
            self.weighting.adapt(len(self.trainer.datamodule.unlabeled), self.class_counts)  # type: ignore[attr-defined]

    def make_views(self, batch: Batch) -> Batch:
        """Make a weak view of every image, and strong views of the unlabeled ones."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled["weak"] = self.weak(labeled["image"])
        unlabeled["weak"] = self.weak(unlabeled["image"])
        unlabeled["strong"] = [self.strong(unlabeled["image"]) for _ in range(self.strong_views)]
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            weak_logits = self.network(unlabeled["weak"]).float()
        logits = self.network(torch.cat([labeled["weak"], *unlabeled["strong"]])).float()
        loss, parts = self.fixmatch_loss(batch, weak_logits, logits)
        self.track(loss=loss, **parts)
        return loss

    def fixmatch_loss(self, batch: Batch, weak_logits: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute FixMatch's loss `[]` and its parts, given the logits of a head. Call this once in each step.

        Args:
            batch: Batch with the views of `make_views`.
            weak_logits: Logits `float32 [U, K]` of the weak views of the unlabeled images, without gradient.
            logits: Logits `float32 [B + S U, K]` of the labeled images, then of the S strong views.
        """
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled_logits, strong_logits = logits.tensor_split([len(labeled["weak"])])
        with torch.no_grad():
            probs, weights = self.pseudo_labels(
                weak_logits.softmax(dim=1), unlabeled["index"], labeled_logits.softmax(dim=1)
            )
            confidence, pseudo_label = probs.max(dim=1)
            target = probs if self.soft_targets else pseudo_label
        labeled_logits = shifted(labeled_logits, self.labeled_shift())
        strong_logits = shifted(strong_logits, self.unlabeled_shift())
        loss_labeled = self.labeled_loss(labeled_logits, labeled["target"])
        loss_strong = self.cross_entropy(strong_logits, torch.cat([target] * self.strong_views))
        loss_unlabeled = (loss_strong * weights.repeat(self.strong_views)).mean()
        loss = loss_labeled + self.lambda_u * loss_unlabeled
        parts = {"loss_labeled": loss_labeled, "loss_unlabeled": loss_unlabeled}
        return loss, parts | {"selected": weights.mean(), "confidence": confidence.mean()}

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """Ask the `weighting`; without one, pseudo-labels that reach the threshold have weight 1, and others 0."""
        if self.weighting is not None:
            weights: Tensor = self.weighting(probs, refined, index, labeled)
            return weights
        return (refined.amax(dim=1) >= self.threshold).float()

    def labeled_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss `[]` of labeled images, from `logits [B, K]` and `target int64 [B]`."""
        return self.cross_entropy(logits, target).mean()

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute each sample's smoothed cross-entropy `[B]` of `logits [B, K]` and `int64 [B]` or probs `[B, K]`."""
        return functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
