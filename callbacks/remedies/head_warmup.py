"""Train the head alone at first, so that its random weights do not spoil a pretrained backbone."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.bases.image_module import ImageModule


class HeadWarmup(Callback):
    """Warm-up of the head: in the first epochs, the backbone keeps its weights.

    JongSuk1/SSL-Fixmatch `train_fixmatch.py` trains the head of a pretrained EfficientNet alone for one epoch. The
    gradients of the backbone are dropped before each optimizer step, so that weight decay and momentum leave it alone
    too, on any number of processes. BatchNorm's statistics move, as in the authors' code.

    Args:
        epochs: Number of epochs in which the head is trained alone, at least 1.

    Raises:
        SettingsError: `epochs` is below 1.
    """

    def __init__(self, epochs: int = 1) -> None:
        check_count("epochs", epochs)
        self.epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without a head."""
        if not isinstance(pl_module, ImageModule):
            raise SettingsError(f"HeadWarmup needs a method of this package, not {type(pl_module).__name__}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Drop the gradients of the backbone during the warm-up."""
        if trainer.current_epoch < self.epochs:
            head = set(pl_module.network.head.parameters())
            for parameter in pl_module.network.parameters():
                if parameter not in head:
                    parameter.grad = None
