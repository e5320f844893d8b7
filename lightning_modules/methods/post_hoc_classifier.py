"""Classifiers that are computed on a trained network, without training: tau-normalization, nearest class mean."""

import torch
from torch.optim import SGD, Optimizer

from tailmatch.lightning_modules.bases.features import data_module_of, features_of
from tailmatch.lightning_modules.bases.frozen_backbone import FrozenBackbone
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.heads import ComputedHead
from tailmatch.lightning_modules.networks import NetworkFactory, WideResNet


class PostHocClassifier(FrozenBackbone):
    """Computes a new head from features of a checkpoint.

    A fit computes the head, validates it and saves it, in one step that trains nothing; `trainer.max_epochs` has no
    part in it. The checkpoint is an ordinary one.

    It has no optimizer, schedule, loss or average among its arguments, since it would not use them.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        checkpoint: See `FrozenBackbone`.
        head: `TauNorm()` or `NCM()`.
        network: See `ImageModule`.
    """

    def __init__(
        self, num_classes: int, checkpoint: str, head: ComputedHead, *, network: NetworkFactory = WideResNet
    ) -> None:
        super().__init__(num_classes, checkpoint, head, network=network, ema_decay=None)
        self.computed_head = head
        self.automatic_optimization = False

    def begin_fit(self) -> None:
        """Compute the head too."""
        if self.checkpoint is None:
            return
        images = self.computed_head.images(data_module_of(self))
        super().begin_fit()
        targets = images.targets.to(self.device)
        found = self.computed_head.compute(self.network.head, features_of(self, images), targets)
        self.print(f"{type(self.computed_head).__name__}: {found}")

    def configure_optimizers(self) -> Optimizer:
        """One that moves nothing: Lightning counts steps by it, and saves no checkpoint before step 1."""
        return SGD(self.network.head.parameters(), lr=0.0)

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]  # there is no loss
        """The only step: the head is there, and the end of an epoch validates and saves it.

        Gradients are zero, and not left out: the loss scaling of 16-mixed takes no step without any.
        """
        self.manual_backward(0 * torch.stack([parameter.sum() for parameter in self.network.head.parameters()]).sum())
        self.optimizers().step()  # type: ignore[union-attr]  # there is one
        self.trainer.should_stop = True
