"""The base of MixMatch and its successors: mixup of labeled and unlabeled images, interleaved passes, ramp-up."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_count, check_positive
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tailmatch.lightning_modules.training.optimization import MixMatchAdam
from tailmatch.lightning_modules.training.schedules import StepSchedule
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.views.mixup import interleaved_order, mixup, mixup_partners


class MixingClassifier(SemiSupervisedClassifier):
    """A method that mixes labeled images with views of unlabeled images and their pseudo-labels.

    The mixed images pass through the network in chunks of the size of the labeled batch. The chunks are interleaved, so
    that each contains a share of the labeled images, and BatchNorm normalizes each chunk by its own statistics. Only
    the first chunk updates the running statistics, as in google-research/mixmatch `mixmatch.py`. (In
    google-research/remixmatch, only the last chunk does; the chunks are alike. In bbuing9/DARP, every pass does.)

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        mix_alpha: Parameter alpha, above 0, of the distribution Beta(alpha, alpha) of mixup's weights.
        mix_per_image: Whether a mixup weight is drawn for each image (the authors), or one for the batch
            (bbuing9/DARP).
        rampup_steps: Number of optimizer steps over which the weight of the unlabeled loss rises linearly from 0. None
            is the length of the training, as in bbuing9/DARP. In google-research/mixmatch it is 1024 * 1024 images in
            batches of 64.
        interleaved: Whether the mixed images pass through the network in interleaved chunks. False passes all at once,
            which is faster and normalizes all images by the same statistics.
        statistics_of_every_pass: Whether every pass updates BatchNorm's running statistics, including the passes that
            guess labels.
        temperature: Temperature T, above 0, that sharpens the pseudo-labels; 1 leaves them unchanged.
        optimizer: Optimizer class, or function that makes the optimizer for a list of parameter groups.
        lr_scheduler: Schedule class, or function that makes the learning rate schedule for an optimizer. The authors'
            learning rate is constant.
        **kwargs: Other arguments of `SemiSupervisedClassifier`.

    Raises:
        SettingsError: An argument lies outside its domain.
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
            check_count("rampup_steps", rampup_steps, 0)
        self.mix_alpha = mix_alpha
        self.mix_per_image = mix_per_image
        self.rampup_steps = rampup_steps
        self.interleaved = interleaved
        self.statistics_of_every_pass = statistics_of_every_pass

    def ramp(self) -> float:
        """Return the factor in [0, 1] of the unlabeled loss at the present step."""
        length = self.total_steps() if self.rampup_steps is None else self.rampup_steps
        return min(1.0, self.trainer.global_step / length) if length else 1.0

    def mixing_logits(self, images: Tensor) -> Tensor:
        """Compute logits `[B, K]` of images by the head that is trained on mixtures: the network's, by default.

        A method whose evaluated head (`network.head`) has another loss overrides it.
        """
        logits: Tensor = self.network(images)
        return logits

    def side_pass(self) -> AbstractContextManager[None]:
        """Return the context of passes other than that of the mixed images, which keeps BatchNorm's running statistics.

        With `statistics_of_every_pass`, it does nothing.
        """
        return nullcontext() if self.statistics_of_every_pass else running_statistics_kept(self.network)

    def mixed_logits(
        self, labeled: Tensor, labels: Tensor, views: list[Tensor], pseudo_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix all images with each other, and compute the logits of the mixtures.

        Args:
            labeled: One view of the labeled images, `[B, 3, H, W]`.
            labels: Classes of the labeled images, `int64 [B]`.
            views: V views of the unlabeled images, each `[U, 3, H, W]`, with U a multiple of B.
            pseudo_labels: Pseudo-labels of the unlabeled images, probs `[U, K]`.

        Returns:
            Logits and mixed targets, `[B, K]` each, of the mixtures in which a labeled image has the larger weight;
            then logits and mixed targets, `[V U, K]` each, of those in which an unlabeled image has it.
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
            return self.mixing_logits(images).float()
        order = to_device(interleaved_order(len(images) // size, size), images.device)
        first, *others = torch.split(images[order], size)
        chunks = [self.mixing_logits(first)]
        with self.side_pass():
            chunks += [self.mixing_logits(chunk) for chunk in others]
        return torch.cat(chunks).float()[order]
