"""DebiasPL (Wang et al., CVPR 2022, arXiv 2201.01490)."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules import SemiSupervisedClassifier
from tailmatch.lightning_modules.pseudo_labels.prior_corrections import check_only_correction
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior, log_shift

FLOOR = 1e-12
"""Added to `mean^tau`, so that a class that is never predicted does not divide by 0; the authors add nothing."""


class DebiasPL(Callback):
    r"""Divides predictions by a power of their running mean, and adds its logarithm in the unlabeled loss.

        q = softmax(z(weak) - tau log mean), the pseudo-label
        mean <- m mean + (1 - m) * batch mean of softmax(z(weak)), which begins uniform
        unlabeled losses with z(strong) + tau log mean (the new one)

    The first counters the favorite classes of the pseudo-labels, the second gives the others a margin. It is a
    callback, since it needs the pseudo-labels and a shift of the logits alone, and works with every method that
    evaluates the logits which make the pseudo-labels. Evaluation has z. What else corrects for a class prior is
    refused: methods such as SimPro, FlexDA, and DistributionAlignment (in ReMixMatch too: `align: false`). DARP is not,
    but it sets the class totals of the pseudo-labels itself, so that little but the margin is left.

    Equations, the order of updates and tau are those of frank-xwang/debiased-pseudo-labeling `main_DebiasPL.py` and its
    `scripts/` for ImageNet, which also have two weak views, a teacher, lambda_u 10 and the threshold 0.8. (By default,
    its arguments are tau 1 and the threshold 0.7.) Its loss CLD is not here. Their code for CIFAR was not released.

    Args:
        tau: Strength of the debiasing, at least 0.
        momentum: Weight m in [0, 1) of the previous mean.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    balances = False
    corrects_prior = True

    def __init__(self, tau: float = 0.4, momentum: float = 0.999) -> None:
        check_at_least("tau", tau, 0)
        self.tau = tau
        self._prior = RunningPrior(1, momentum)  # that of all classes comes in `setup`

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method.

        Raises:
            SettingsError: The method has no pseudo-labels, or corrects for a class prior itself.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            raise SettingsError(f"DebiasPL debiases pseudo-labels, and {type(pl_module).__name__} has none")
        self._prior = RunningPrior(pl_module.num_classes, self._prior.momentum)
        pl_module.add_refiner(self, before_sharpening=True)
        pl_module.add_shift(self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what corrects the same.

        Raises:
            SettingsError: The method or another callback corrects for a class prior.
        """
        check_only_correction(self, trainer, pl_module)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Debias by the mean before this batch, and add the batch to it. See `PseudoLabelRefiner.refine`."""
        prior = self._prior.to(probs.device)
        refined = debias(probs, prior.probs, self.tau)
        prior.update(probs)
        return refined

    def labeled_shift(self) -> Tensor | None:
        """See `LossShift.labeled_shift`: the labeled loss is unchanged."""
        return None

    def unlabeled_shift(self) -> Tensor:
        """Return `tau log mean`, with the present batch. See `LossShift.unlabeled_shift`."""
        return log_shift(self._prior.probs, self.tau, FLOOR)

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean, for a checkpoint."""
        return self._prior.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the running mean of a checkpoint."""
        self._prior = RunningPrior(len(state_dict["probs"]), self._prior.momentum)
        self._prior.load_state_dict(state_dict)


def debias(probs: Tensor, prior: Tensor, tau: float) -> Tensor:
    """Compute `p_k / prior_k^tau` of rows `[B, K]`, normalized: `softmax(z - tau log prior)` of their logits z."""
    divided = probs / (prior**tau + FLOOR)
    return divided / divided.sum(dim=1, keepdim=True)
