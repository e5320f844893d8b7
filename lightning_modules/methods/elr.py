"""ELR, early-learning regularization (Liu et al., NeurIPS 2020, arXiv 2007.00151): for wrong labels."""

from typing import Any

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_below_one
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.methods.supervised import Supervised
from tailmatch.lightning_modules.pseudo_labels.row_memory import RowMemory

BOUND = 1e-4
"""Smallest probability of the regularization (authors' `ELR/model/loss.py`); the largest is 1 minus it."""


class ELR(Supervised):
    r"""Supervised training that holds on to its early predictions, before wrong labels are memorized.

    With the prediction p of a labeled image, bounded by 1e-4 and 1 - 1e-4, and its target t, which begins with zeros
    and is moved before the loss, without gradient:

        t <- beta t + (1 - beta) p / sum p
        loss = Supervised + lambda_elr * mean(log(1 - <t, p>))

    The gradient of the second term is large where the prediction agrees with earlier ones, and then draws it there,
    against the label. It is a method rather than a loss since it keeps K numbers for each labeled image, which are
    saved. Any `loss` and `class_weights` go with it.

    Equations and defaults are those of shengliu66/ELR `ELR/model/loss.py`, `config_cifar10.json`; for CIFAR-100 they
    have beta 0.9 and lambda 7. Their ELR+, with two networks and mixup, is not here.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        lambda_elr: Weight of the regularization, at least 0.
        beta: Weight in [0, 1) of the previous target.
        **kwargs: Other arguments of `Supervised`, but for `mixup`.

    Raises:
        SettingsError: An argument lies outside its domain, or `mixup` is not 0.
    """

    def __init__(self, num_classes: int, *, lambda_elr: float = 3.0, beta: float = 0.7, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("lambda_elr", lambda_elr, 0)
        check_below_one("beta", beta)
        if self.mixup:
            raise SettingsError(f"mixup is {self.mixup}, and ELR keeps the predictions of whole images: leave it out")
        self.lambda_elr = lambda_elr
        self.beta = beta
        self.targets = RowMemory(num_classes)

    def setup(self, stage: str) -> None:
        """Take the number of labeled images, besides `Supervised.setup`."""
        super().setup(stage)
        if stage == "fit":
            self.targets.adapt(len(self.trainer.datamodule.labeled))  # type: ignore[attr-defined]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled = batch["labeled"]
        logits = self.network(labeled["weak"]).float()
        loss_labeled = self.criterion(logits, labeled["target"])
        probs = logits.softmax(dim=1).clamp(BOUND, 1 - BOUND)
        before = self.targets.rows[labeled["index"]]
        target = moved_target(before, probs.detach(), self.beta)
        self.targets.write(labeled["index"], target)
        loss_elr = early_learning(target, probs)
        loss = loss_labeled + self.lambda_elr * loss_elr
        self.track(loss=loss, loss_labeled=loss_labeled, loss_elr=loss_elr)
        return loss


def moved_target(target: Tensor, probs: Tensor, beta: float) -> Tensor:
    """Compute `beta t + (1 - beta) p / sum p` from targets t and bounded probs p, both `[B, K]`."""
    return beta * target + (1 - beta) * probs / probs.sum(dim=1, keepdim=True)


def early_learning(target: Tensor, probs: Tensor) -> Tensor:
    """Compute the mean of `log(1 - <t, p>)`, `[]`, from targets t and bounded probs p, both `[B, K]`."""
    return (1 - (target * probs).sum(dim=1)).log().mean()
