"""SimPro (Du et al., ICML 2024, arXiv 2402.13505)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.running_prior import IntervalPrior, log_shift, soft_counts
from tailmatch.lightning_modules.training.length import warn_unless_reached

FLOOR = 1e-12
"""Added to `prior^tau` before the logarithm, so that a class without images has a finite shift (authors' code)."""


class SimPro(FixMatch):
    r"""Expectation-maximization for unlabeled images of unknown class frequencies: both priors are estimated.

    The logits z are trained without a prior. With the prior `pi_u` of the unlabeled images and `pi` of all images that
    are trained on:

        q = softmax(z(weak) + tau log pi_u), refined; a soft target
        loss = lambda_l * mean CE(y, z(weak and strong labeled) + tau log pi)
               + lambda_u * mean(1[max q >= threshold] * CE(q, z(strong) + tau log pi))

    `pi_u` begins uniform, and `pi` as the labeled class counts. After every `every` steps, with the sums D of the
    selected q and C of the labels of these steps:

        pi_u <- m pi_u + (1 - m) D / (sum D + 1)        pi <- m pi + (1 - m) (C + D) / sum(C + D)

    Evaluation has z alone, which is balanced: `LogitAdjustment` is refused. With DARP or DistributionAlignment, q
    follows their target, and so do the estimates.

    Equations and defaults are those of LeapLabTHU/SimPro `SimPro/train.py` and, for CIFAR-10, `sh/SimPro.sh`. (For
    CIFAR-100 and ImageNet, tau is 1 and the threshold 0.2.) The authors' checkpoints lack both priors, ours contain
    them. As in `FixMatch`, the weak views of unlabeled images pass through the network separately.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        tau: Strength of the shifts, at least 0.
        momentum: Weight m of the previous priors, in [0, 1).
        every: Number of steps between two updates of the priors, at least 1. The authors have 86 in a training.
        lambda_l: Weight of the labeled loss. None: the images that pass in a step, as shares of their sets, labeled by
            unlabeled: the inverse of the authors' `scale_ratio`, and 1 if both sets last for as many steps.
        strong_views: Number of strong views of each unlabeled image, at least 1. Labeled images have one.
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
        momentum: float = 0.9,
        every: int = 500,
        lambda_l: float | None = None,
        strong_views: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, strong_views=strong_views, **kwargs)
        check_at_least("tau", tau, 0)
        if lambda_l is not None:
            check_at_least("lambda_l", lambda_l, 0)
        self.tau = tau
        self.lambda_l = lambda_l
        self.labeled_weight = 1.0 if lambda_l is None else lambda_l
        self.prior = IntervalPrior(num_classes, momentum, every)
        self.unlabeled_prior = IntervalPrior(num_classes, momentum, every, extra=1)

    def setup(self, stage: str) -> None:
        """Take the sizes of the labeled and unlabeled set from the data, besides what `FixMatch` takes."""
        super().setup(stage)
        if stage != "fit":
            return
        warn_unless_reached(self.trainer, "every", self.prior.every, "SimPro's estimate of the prior")
        if self.lambda_l is None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.labeled_weight = len(data.labeled) * data.unlabeled_ratio / len(data.unlabeled)

    def begin_fit(self) -> None:
        """Begin with the prior of the labeled images."""
        super().begin_fit()
        self.prior.begin(self.class_counts)

    def make_views(self, batch: Batch) -> Batch:
        """Make a strong view of the labeled images, besides the views of `FixMatch`."""
        batch["labeled"]["strong"] = self.strong(batch["labeled"]["image"])
        return super().make_views(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            weak_logits = self.network(unlabeled["weak"]).float()
            probs = (weak_logits + log_shift(self.unlabeled_prior.probs, self.tau, FLOOR)).softmax(dim=1)
            target, weights = self.pseudo_labels(probs, unlabeled["index"])
        logits = self.network(torch.cat([labeled["weak"], labeled["strong"], *unlabeled["strong"]])).float()
        logits = logits + log_shift(self.prior.probs, self.tau, FLOOR)
        labeled_logits, strong_logits = logits.tensor_split([2 * len(labeled["weak"])])
        labeled_logits = shifted(labeled_logits, self.labeled_shift())
        strong_logits = shifted(strong_logits, self.unlabeled_shift())
        loss_labeled = self.cross_entropy(labeled_logits, labeled["target"].repeat(2)).mean()
        loss_strong = self.cross_entropy(strong_logits, target.repeat(self.strong_views, 1))
        loss_unlabeled = (loss_strong * weights.repeat(self.strong_views)).mean()
        loss = self.labeled_weight * loss_labeled + self.lambda_u * loss_unlabeled
        self.update_priors(soft_counts(target, weights), labeled["target"])
        self.track(
            loss=loss,
            loss_labeled=loss_labeled,
            loss_unlabeled=loss_unlabeled,
            selected=weights.mean(),
            confidence=target.amax(dim=1).mean(),
        )
        return loss

    def update_priors(self, pseudo_counts: Tensor, labels: Tensor) -> None:
        """Count the selected pseudo-labels `[K]` and labels `int64 [B]` of a step, which moves the priors if due."""
        label_counts = functional.one_hot(labels, self.num_classes).sum(dim=0)
        self.unlabeled_prior.update(pseudo_counts)
        self.prior.update(label_counts + pseudo_counts)
