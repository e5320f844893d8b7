"""Classifier re-training with the unlabeled images: FixMatch with a frozen backbone and a new head."""

from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable

from tailmatch.lightning_modules.bases.frozen_backbone import FrozenBackbone
from tailmatch.lightning_modules.heads import CRT, TrainedHead
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.training.optimization import FixMatchSGD
from tailmatch.lightning_modules.training.schedules import CosineDecay


class FixMatchRetraining(FrozenBackbone, FixMatch):
    """A new head on the frozen backbone of a checkpoint, trained as `FixMatch` trains a whole network.

    JongSuk1/SSL-Fixmatch `balance_classifier.py` (FixMatch-cRT): the pseudo-labels are those of the new head. The
    authors sample the labeled classes equally, which is a setting of the data: `--data.labeled_sampling balanced`.
    `ClassifierRetraining` trains the head on the labeled images alone, as Kang et al. do.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        checkpoint: Path or URL of a checkpoint of another method, such as `<run>/checkpoints/best.ckpt`. The command
            line also takes the network from it, unless `network` is given.
        head: New head, `CRT()` or `LWS()`; None is `CRT()`.
        optimizer: Optimizer class, or function that makes the optimizer for a list of parameter groups.
        lr_scheduler: Schedule class, or function that makes the learning rate schedule for an optimizer. The authors
            have a quarter of a cosine, `CosineDecay` with `cycles=0.5`.
        ema_decay: Decay in [0, 1) of the averaged weights that are evaluated; None evaluates the trained weights, as
            the authors do.
        decay_norm_and_bias: Whether weight decay also applies to the head's bias, as in the authors' code.
        **kwargs: Other arguments of `FixMatch`.
    """

    def __init__(
        self,
        num_classes: int,
        checkpoint: str,
        *,
        head: TrainedHead | None = None,
        optimizer: OptimizerCallable = FixMatchSGD,
        lr_scheduler: LRSchedulerCallable = CosineDecay,
        ema_decay: float | None = None,
        decay_norm_and_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes,
            checkpoint,
            head or CRT(),
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            ema_decay=ema_decay,
            decay_norm_and_bias=decay_norm_and_bias,
            **kwargs,
        )
