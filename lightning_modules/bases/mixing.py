"""What MixMatch and its descendants share: mixup over labeled and unlabeled images, interleaved passes, ramp-up."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_positive
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tailmatch.lightning_modules.training.optimization import MixMatchAdam, StepSchedule
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.views.mixup import interleaved_order, mixup, mixup_partners


class MixingClassifier(SemiSupervisedClassifier):
    """A method that mixes labeled images with views of unlabeled ones and their pseudo-labels.

    Batch normalization: mixed images pass through the network in chunks as large as the labeled batch, interleaved
    so that each has its part of labeled images, and each chunk is normalized by its own statistics. Running
    statistics see the first of these chunks only, as in google-research/mixmatch `mixmatch.py` (google-research/
    remixmatch takes the last: the chunks are alike); bbuing9/DARP updates them in every pass.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        mix_alpha: alpha of mixup's Beta(alpha, alpha), above 0.
        mix_per_image: Draw mixup's weight for each image (the authors), or one for the batch (bbuing9/DARP).
        rampup_steps: Steps over which the unlabeled weight rises linearly from 0; null is the whole training, as in
            bbuing9/DARP. google-research/mixmatch: 1024 * 1024 images in batches of 64.
        interleaved: Pass the mixed images in interleaved chunks; false passes them all at once, which is faster and
            normalizes all by the same statistics.
        statistics_of_every_pass: Update the running statistics in every pass, also those that guess labels.
        temperature: See `SemiSupervisedClassifier`.
        optimizer: See `ImageModule`.
        lr_scheduler: See `ImageModule`; the authors' rate is constant.
        **kwargs: The other arguments of `SemiSupervisedClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mix_alpha: float = 0.75,
        mix_per_image: bool = True,
        rampup_steps: int | None = 16_384,
        interleaved: bool = True,
        statistics_of_every_pass: bool = False,
        temperature: float = 0.5,
        optimizer: OptimizerCallable = MixMatchAdam,
        lr_scheduler: LRSchedulerCallable = StepSchedule,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, temperature=temperature, optimizer=optimizer, lr_scheduler=lr_scheduler, **kwargs)
        check_positive("mix_alpha", mix_alpha)
        if rampup_steps is not None:
            check_at_least("rampup_steps", rampup_steps, 0)
        self.mix_alpha = mix_alpha
        self.mix_per_image = mix_per_image
        self.rampup_steps = rampup_steps
        self.interleaved = interleaved
        self.statistics_of_every_pass = statistics_of_every_pass

    def ramp(self) -> float:
        """Share of the unlabeled weight at the present step, in [0, 1]."""
        length = self.total_steps() if self.rampup_steps is None else self.rampup_steps
        return min(1.0, self.trainer.global_step / length) if length else 1.0

    def side_pass(self) -> AbstractContextManager[None]:
        """Context of passes beside the mixed one: they leave running statistics alone, unless every pass counts."""
        return nullcontext() if self.statistics_of_every_pass else running_statistics_kept(self.network)

    def mixed_logits(
        self, labeled: Tensor, labels: Tensor, views: list[Tensor], pseudo_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix all images with each other, and predict.

        Args:
            labeled: `[B, 3, H, W]`, one view of the labeled images.
            labels: `int64 [B]`.
            views: V views `[U, 3, H, W]` of the unlabeled images, U a multiple of B.
            pseudo_labels: `[U, K]` probs.

        Returns:
            `[B, K]` logits and probs (the mixed targets) of mixtures with more of a labeled image, then `[V U, K]`
            of those with more of an unlabeled one.
        """
        images = torch.cat([labeled, *views])
        one_hot = functional.one_hot(labels, self.num_classes).to(pseudo_labels.dtype)
        target = torch.cat([one_hot, pseudo_labels.repeat(len(views), 1)])
        weight, partner = mixup_partners(len(images), self.mix_alpha, self.mix_per_image)
        weight, partner = to_device(weight, images.device), to_device(partner, images.device)
        logits = self._chunked_logits(mixup(images, weight, partner), len(labeled))
        target = mixup(target, weight, partner)
        return logits[: len(labeled)], target[: len(labeled)], logits[len(labeled) :], target[len(labeled) :]

    def _chunked_logits(self, images: Tensor, size: int) -> Tensor:
        if not self.interleaved:
            logits: Tensor = self.network(images).float()
            return logits
        order = to_device(interleaved_order(len(images) // size, size), images.device)
        first, *others = torch.split(images[order], size)
        chunks = [self.network(first)]
        with self.side_pass():
            chunks += [self.network(chunk) for chunk in others]
        return torch.cat(chunks).float()[order]
