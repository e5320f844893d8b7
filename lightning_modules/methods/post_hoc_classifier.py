"""Classifiers that are computed from a trained network without training: tau-normalization, nearest class mean."""

import torch
from torch.optim import SGD, Optimizer

from tailmatch.lightning_modules.bases.features import data_module_of, features_of
from tailmatch.lightning_modules.bases.frozen_backbone import FrozenBackbone
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.heads import ComputedHead
from tailmatch.lightning_modules.networks import NetworkFactory, WideResNet


class PostHocClassifier(FrozenBackbone):
    """A new head that is computed, not trained, on the frozen backbone of a checkpoint.

    A fit computes the head, validates it and saves it, in a single step that trains nothing, whatever
    `trainer.max_epochs` is. It writes checkpoints like those of any other method.

    There are no arguments for optimizer, schedule, loss and weight averaging, since they would have no effect.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        checkpoint: Path or URL of a checkpoint of another method, such as `<run>/checkpoints/best.ckpt`. The command
            line also takes the network from it, unless `network` is given.
        head: New head, `TauNorm()` or `NCM()`.
        network: Network class, or function that makes the network for K classes. In Python, also the network itself, or
            any `torch.nn.Module` that outputs logits or features (see `ModuleNetwork`).
    """

    def __init__(
        self, num_classes: int, checkpoint: str, head: ComputedHead, *, network: NetworkFactory = WideResNet
    ) -> None:
        super().__init__(num_classes, checkpoint, head, network=network, ema_decay=None)
        self.computed_head = head
        self.automatic_optimization = False

    def begin_fit(self) -> None:
        """Load the checkpoint's network and compute the head from its features."""
        if self.checkpoint is None:
            return
        images = self.computed_head.images(data_module_of(self))
        super().begin_fit()
        targets = images.targets.to(self.device)
        found = self.computed_head.compute(self.network.head, features_of(self, images), targets)
        self.print(f"{type(self.computed_head).__name__}: {found}")

    def configure_optimizers(self) -> Optimizer:
        """Make an optimizer that changes nothing: Lightning counts its steps, and saves no checkpoint before step 1."""
        return SGD(self.network.head.parameters(), lr=0.0)

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]  # there is no loss
        """Count one step and stop: the head is complete, and the end of the epoch validates and saves it.

        The gradients are zero rather than missing, since the loss scaling of 16-mixed needs gradients for a step.
        """
        self.manual_backward(0 * torch.stack([parameter.sum() for parameter in self.network.head.parameters()]).sum())
        self.optimizers().step()  # type: ignore[union-attr]  # there is one
        self.trainer.should_stop = True
