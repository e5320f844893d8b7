"""Supervised training on the labeled stream: the baseline."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.arguments import check_at_least, check_share
from lightning_modules.classifier import ImageClassifier
from lightning_modules.image_module import Batch
from lightning_modules.views import WeakView


class Supervised(ImageClassifier):
    """Cross-entropy on labeled images alone, or on mixtures of them.

    Args:
        label_smoothing: In [0, 1].
        mixup: alpha of mixup (Zhang et al. 2018, arXiv 1710.09412); 0 for none. bbuing9/DARP's base classifier
            mixes with `max(l, 1 - l)`, `l` from Beta(alpha, alpha), one for the batch.
        view: View of the labeled images; None is the weak view.
        **kwargs: The arguments of `ImageClassifier`.
    """

    def __init__(
        self, label_smoothing: float = 0.0, mixup: float = 0.0, view: nn.Module | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_share("label_smoothing", label_smoothing)
        check_at_least("mixup", mixup, 0)
        self.mixup = mixup
        self.label_smoothing = label_smoothing
        self.view = view or WeakView()

    def make_views(self, batch: Batch) -> Batch:
        """One view of the labeled stream."""
        batch["labeled"]["weak"] = self.view(batch["labeled"]["image"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        images, target = batch["labeled"]["weak"], batch["labeled"]["target"]
        weight, partner = 1.0, torch.arange(len(target), device=target.device)
        if self.mixup:
            weight, partner = mixup_partners(len(target), self.mixup)
            partner = partner.to(target.device, non_blocking=True)
            images = weight * images + (1 - weight) * images[partner]
        logits = self.network(images).float()
        loss = weight * self.cross_entropy(logits, target) + (1 - weight) * self.cross_entropy(logits, target[partner])
        self.track(loss=loss)
        return loss

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean smoothed cross-entropy, `[]`, of `logits [B, K]` and `target int64 [B]`."""
        return functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)


def mixup_partners(size: int, alpha: float) -> tuple[float, Tensor]:
    """Weight of the own image, in [1/2, 1], and each image's partner, `int64 [size]`, drawn on the host."""
    concentration = torch.tensor(alpha)
    weight = float(torch.distributions.Beta(concentration, concentration).sample())
    return max(weight, 1 - weight), torch.randperm(size)
