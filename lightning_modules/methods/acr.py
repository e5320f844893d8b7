"""ACR (Wei and Gan, CVPR 2023)."""

from typing import Any

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.adaptive_adjustment import FLOOR, AdaptiveAdjustment, Estimate
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift


class ACR(FixMatch):
    r"""Two heads, and pseudo-labels adjusted as the estimated classes of the unlabeled images ask for.

    With the logits z of the standard head, b of the balanced head, and the labeled prior pi:

        q = softmax(z(weak) - tau log pi), refined        r = softmax(z(weak) - tau_balanced log pi)
        loss = CE(z(labeled)) + CE(b(labeled) + tau_balanced log pi)
               + lambda_u * mean(1[max q or max softmax(z(weak)) >= threshold] * CE(argmax q, z(strong)))
               + lambda_u * mean(1[max r or max softmax(b(weak)) >= threshold] * CE(argmax r, b(strong)))

    The strength tau is near 0 if confident predictions of the balanced head have the classes of the labeled set, and
    large if they have the reverse: see `AdaptiveAdjustment`. With `adaptive` false it is fixed, which is the `ACR_d` of
    LeapLabTHU/SimPro. The balanced head is `network.head`: it is evaluated, and `LogitAdjustment` is refused.

    Remedies change q after its adjustment, so that q has the class totals of DARP whatever tau is. They leave r alone.

    Equations and defaults are those of Gank0078/ACR `train.py`, with the README's momentum of 0.99 (the argument's
    default is 0.9). Labeled images that are unlabeled as well do not count in the estimate, as there. As in `FixMatch`,
    the weak views of unlabeled images pass through the network separately.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        tau: Largest strength of the adjustment of q, at least 0; the strength itself if `adaptive` is false.
        adaptive: Whether the strength follows an estimate of the unlabeled classes.
        tau_balanced: Strength of the adjustment of r, and in the loss of the balanced head, at least 0.
        momentum: Weight of the previous estimate, in [0, 1). This and what follows has no effect if not `adaptive`.
        every: Number of steps between changes of tau, at least 1.
        warmup_steps: Number of steps before the estimate begins, at least 0; the authors have 6 epochs of 500 steps.
        estimate: What a step shows of the unlabeled classes: `presence` or `counts` of confident predictions.
        strong_views: Number of strong views of each unlabeled image, at least 1.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    balanced_evaluation = True

    def __init__(
        self,
        num_classes: int,
        *,
        tau: float = 2.0,
        adaptive: bool = True,
        tau_balanced: float = 2.0,
        momentum: float = 0.99,
        every: int = 500,
        warmup_steps: int = 3000,
        estimate: Estimate = "presence",
        strong_views: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, strong_views=strong_views, **kwargs)
        check_at_least("tau_balanced", tau_balanced, 0)
        self.tau_balanced = tau_balanced
        self.standard = nn.Linear(self.network.feature_dim, num_classes)
        self.adjustment = AdaptiveAdjustment(num_classes, tau, momentum, every, warmup_steps, estimate, adaptive)
        self.add_refiner(self.adjustment, before_sharpening=True)
        self.labeled_in_front = 0  # of the unlabeled set

    def setup(self, stage: str) -> None:
        """Learn which unlabeled images are labeled ones as well, besides what `FixMatch` takes from the data."""
        super().setup(stage)
        if stage == "fit":
            self.labeled_in_front = self.trainer.datamodule.labeled_in_front  # type: ignore[attr-defined]

    def begin_fit(self) -> None:
        """Take the prior of the labeled images."""
        super().begin_fit()
        self.adjustment.begin(self.class_counts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            features, weak_balanced = self.network.features_and_logits(unlabeled["weak"])
            weak = self.standard(features).float()
        features, balanced = self.network.features_and_logits(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        tau = self.adjustment.tau.clone()
        loss, parts = self.fixmatch_loss(batch, weak, self.standard(features).float())
        loss_balanced, weights = self.balanced_loss(batch, weak, weak_balanced.float(), balanced.float())
        loss = loss + loss_balanced
        self.track(loss=loss, loss_balanced=loss_balanced, selected_balanced=weights.mean(), tau=tau, **parts)
        return loss

    def balanced_loss(
        self, batch: Batch, weak: Tensor, weak_balanced: Tensor, balanced: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss `[]` of the balanced head and its weights `[U]`, and update the estimate.

        Args:
            batch: Batch with the views of `make_views`.
            weak: The standard head's logits `float32 [U, K]` of the weak views, without gradient.
            weak_balanced: Those of the balanced head.
            balanced: The balanced head's logits `float32 [B + S U, K]` of the labeled images, then of the strong views.
        """
        labeled, index = batch["labeled"], batch["unlabeled"]["index"]
        labeled_logits, strong_logits = balanced.tensor_split([len(labeled["weak"])])
        log_prior = log_shift(self.adjustment.prior, self.tau_balanced, FLOOR)
        confidence, pseudo_label = (weak - log_prior).softmax(dim=1).max(dim=1)
        own_confidence, own_label = weak_balanced.softmax(dim=1).max(dim=1)
        confident = own_confidence >= self.threshold
        self.adjustment.update(own_label, confident & (index >= self.labeled_in_front))
        weights = (confident | (confidence >= self.threshold)).float()
        loss_labeled = self.cross_entropy(labeled_logits + log_prior, labeled["target"]).mean()
        loss_strong = self.cross_entropy(strong_logits, pseudo_label.repeat(self.strong_views))
        return loss_labeled + self.lambda_u * (loss_strong * weights.repeat(self.strong_views)).mean(), weights

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """Select the rows that are confident in the refined pseudo-label or in the plain prediction."""
        return (torch.maximum(probs.amax(dim=1), refined.amax(dim=1)) >= self.threshold).float()
