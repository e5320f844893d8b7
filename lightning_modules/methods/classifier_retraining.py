"""Classifier re-training: a new head on a frozen backbone, trained on the labeled images."""

from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable

from tailmatch.lightning_modules.bases.frozen_backbone import FrozenBackbone
from tailmatch.lightning_modules.heads import CRT, TrainedHead
from tailmatch.lightning_modules.methods.supervised import Supervised
from tailmatch.lightning_modules.training.optimization import CosineAnnealing, RetrainingSGD


class ClassifierRetraining(FrozenBackbone, Supervised):
    """Trains a new head on the features of a checkpoint, as `Supervised` trains a whole network.

    Kang et al. 2020 (arXiv 1910.09217), section 4; facebookresearch/classifier-balancing `config/ImageNet_LT`. They
    sample the classes equally, which is the data's part: `--data.labeled_sampling balanced`. bbuing9/DARP
    `train_crt.py` weighs the classes in the loss instead (`class_weights`), and mixes images (`mixup`).

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        checkpoint: See `FrozenBackbone`.
        head: `CRT()` or `LWS()`; None is `CRT()`.
        optimizer: See `ImageModule`.
        lr_scheduler: See `ImageModule`; half a cosine to zero in the paper (section 5.1), over 10 epochs of cRT or 5 of
            LWS.
        ema_decay: See `ImageModule`; none in the paper.
        decay_norm_and_bias: See `ImageModule`; the authors' optimizer decays biases and scales too.
        **kwargs: The other arguments of `Supervised`.
    """

    def __init__(
        self,
        num_classes: int,
        checkpoint: str,
        *,
        head: TrainedHead | None = None,
        optimizer: OptimizerCallable = RetrainingSGD,
        lr_scheduler: LRSchedulerCallable = CosineAnnealing,
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
