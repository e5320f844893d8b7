"""AdaMatch (Berthelot et al., ICLR 2022, arXiv 2106.04732)."""

import math
from typing import Any

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_below_one, check_count
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import align
from tailmatch.lightning_modules.pseudo_labels.running_prior import RecentPrior, RunningPrior
from tailmatch.lightning_modules.training.length import progress
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.weightings import RelativeThreshold


class AdaMatch(FixMatch):
    r"""FixMatch with a relative threshold, alignment with the predictions on labeled images, and mixed logits of these.

    1. Labeled images, in a weak and a strong view, pass through the network twice: alone, with logits z1, and together
       with the unlabeled images, with logits z2. BatchNorm thus normalizes them by two statistics. Their logits are
       `z = z2 + u (z1 - z2)`, with u from U(0, 1) for each logit (random logit interpolation).
    2. With the prediction p on the weak view of an unlabeled image, `q_k = p_k (l_k + 1e-6) / (m_k + 1e-6)`,
       normalized. l is a running mean of the predictions on weak labeled views, and m the mean of p over the last
       batches; both include this step.
    3. q counts if max q >= threshold * mean(max softmax(z)) over the weak labeled views (`RelativeThreshold`).

        loss = (CE(z(weak)) + CE(z(strong))) / 2 + ramp * lambda_u * mean(1[q counts] * CE(argmax q, z2(strong)))

    where the first part is of labeled images, the second of unlabeled ones, and the ramp is `(1 - cos(2 pi t / T)) / 2`
    in the first half of a training of T steps, and then 1.

    The alignment assumes unlabeled classes as frequent as the labeled ones. It comes before all remedies, so that a
    `DistributionAlignment` to another target, or DARP, moves what it leaves.

    Equations and defaults are those of google-research/adamatch `semi_supervised/adamatch.py`. The pass of the labeled
    images alone has a gradient, and does not move BatchNorm's running statistics. Alignment and interpolation are
    there as in the paper; microsoft/Semi-supervised-learning has no interpolation, ramp or strong labeled view.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        threshold: The threshold, as a share in [0, 1] of the mean confidence in the labeled images.
        momentum: Weight in [0, 1) of the previous mean of predictions on labeled images.
        batches: Number of batches in the mean of predictions on unlabeled images, at least 1.
        interpolate_logits: Whether the logits of labeled images are interpolated. False saves their pass alone.
        **kwargs: Other arguments of `FixMatch`, but for the weighting.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        threshold: float = 0.9,
        momentum: float = 0.999,
        batches: int = 128,
        interpolate_logits: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, threshold=threshold, weighting=RelativeThreshold(), **kwargs)
        check_below_one("momentum", momentum)
        check_count("batches", batches)
        self.interpolate_logits = interpolate_logits
        self.labeled_prior = RunningPrior(num_classes, momentum)
        self.unlabeled_prior = RecentPrior(num_classes, batches)

    def make_views(self, batch: Batch) -> Batch:
        """Make a strong view of the labeled images, besides the views of `FixMatch`."""
        batch["labeled"]["strong"] = self.strong(batch["labeled"]["image"])
        return super().make_views(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        count = len(labeled["weak"])
        views = torch.cat([labeled["weak"], labeled["strong"]])
        logits = self.network(torch.cat([views, unlabeled["weak"], *unlabeled["strong"]])).float()
        ends = [2 * count, 2 * count + len(unlabeled["weak"])]
        labeled_logits, weak_logits, strong_logits = logits.tensor_split(ends)
        if self.interpolate_logits:
            with running_statistics_kept(self.network):
                labeled_logits = interpolated(labeled_logits, self.network(views).float())
        with torch.no_grad():
            labeled_probs = labeled_logits[:count].softmax(dim=1)
            probs = self.aligned(weak_logits.softmax(dim=1), labeled_probs)
            target, weights = self.pseudo_labels(probs, unlabeled["index"], labeled_probs)
            confidence, pseudo_label = target.max(dim=1)
            target = target if self.soft_targets else pseudo_label
        labeled_logits = shifted(labeled_logits, self.labeled_shift())
        strong_logits = shifted(strong_logits, self.unlabeled_shift())
        loss_labeled = self.cross_entropy(labeled_logits, labeled["target"].repeat(2)).mean()
        loss_strong = self.cross_entropy(strong_logits, torch.cat([target] * self.strong_views))
        loss_unlabeled = (loss_strong * weights.repeat(self.strong_views)).mean()
        loss = loss_labeled + ramp(progress(self.trainer)) * self.lambda_u * loss_unlabeled
        self.track(
            loss=loss,
            loss_labeled=loss_labeled,
            loss_unlabeled=loss_unlabeled,
            selected=weights.mean(),
            confidence=confidence.mean(),
        )
        return loss

    def aligned(self, probs: Tensor, labeled_probs: Tensor) -> Tensor:
        """Update both means by the predictions of the step, and align those on unlabeled images, `[U, K]`."""
        self.labeled_prior.update(labeled_probs)
        self.unlabeled_prior.update(probs)
        return align(probs, self.labeled_prior.probs, self.unlabeled_prior.probs)


def interpolated(together: Tensor, alone: Tensor) -> Tensor:
    """Move each logit `[B, K]` of a joint pass by a random share towards that of another pass."""
    share = to_device(torch.rand(together.shape), together.device)
    return together + share * (alone - together)


def ramp(progress: float) -> float:
    """Compute the factor of the unlabeled loss, in [0, 1], at a share of the training."""
    return 0.5 - 0.5 * math.cos(min(math.pi, 2 * math.pi * progress))
