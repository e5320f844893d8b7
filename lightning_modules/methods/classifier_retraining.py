"""Classifier re-training: a new head on a frozen backbone, trained on the labeled images."""

from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable

from tailmatch.lightning_modules.bases.frozen_backbone import FrozenBackbone
from tailmatch.lightning_modules.heads import CRT, TrainedHead
from tailmatch.lightning_modules.methods.supervised import Supervised
from tailmatch.lightning_modules.training.optimization import RetrainingSGD
from tailmatch.lightning_modules.training.schedules import CosineAnnealing


class ClassifierRetraining(FrozenBackbone, Supervised):
    """A new head on the frozen backbone of a checkpoint, trained as `Supervised` trains a whole network.

    Kang et al. 2020 (arXiv 1910.09217), section 4; facebookresearch/classifier-balancing `config/ImageNet_LT`. The
    authors sample the classes equally, which is a setting of the data: `--data.labeled_sampling balanced`.
    bbuing9/DARP `train_crt.py` weighs the classes in the loss instead (`class_weights`), and mixes images (`mixup`).

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        checkpoint: Path or URL of a checkpoint of another method, such as `<run>/checkpoints/best.ckpt`. The command
            line also takes the network from it, unless `network` is given.
        head: New head, `CRT()` or `LWS()`; None is `CRT()`.
        optimizer: Optimizer class, or function that makes the optimizer for a list of parameter groups.
        lr_scheduler: Schedule class, or function that makes the learning rate schedule for an optimizer. The paper
            (section 5.1) uses half a cosine to zero, over 10 epochs of cRT or 5 of LWS.
        ema_decay: Decay in [0, 1) of the averaged weights that are evaluated; None evaluates the trained weights, as in
            the paper.
        decay_norm_and_bias: Whether weight decay also applies to biases and to the scales of `LWS`, as in the authors'
            code.
        **kwargs: Other arguments of `Supervised`.
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
