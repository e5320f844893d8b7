"""FlexDA, the alignment of ADELLO (arXiv 2306.04621), and UDAL (Lazarow et al., WACV 2023) as its special case."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_positive, check_positive_share
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.pseudo_labels.class_prior import check_target, unlabeled_totals
from tailmatch.lightning_modules.pseudo_labels.prior_corrections import check_only_correction
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior
from tailmatch.lightning_modules.training.length import progress

LABELED = "labeled"

FLOOR = 1e-9
"""Added to both distributions of a shift (authors' `imb_algorithms/adello/utils.py`)."""


class FlexDA(Callback):
    r"""Aligns logits in the losses with a class distribution that becomes flatter in the course of the training.

    With the labeled prior `pi_l`, the estimated unlabeled prior `p`, the mean of the predictions on weak views before
    this step, and the share s of the training that is done:

        alpha = 1 - (1 - alpha_min) s^power        target = p^alpha, normalized
        labeled loss with z + log(pi_l / target)   unlabeled losses with z(strong) + log(p / target)

    Pseudo-labels are those of z, which becomes that of the target: at first of the unlabeled prior, in the end of
    nearly equal classes. It needs a shift of the logits alone, so it is a callback, for every method with
    pseudo-labels; ADELLO's other half, which has a loss of its own, is the method `ADELLO`. `LogitAdjustment` is
    refused then. FlexDA is refused for methods that correct for a class prior themselves, and beside DebiasPL and
    DistributionAlignment (in ReMixMatch: `align: false`). DARP moves the pseudo-labels to its own target: give FlexDA
    the same.

    Equations and defaults are those of emasa/ADELLO-LTSSL `imb_algorithms/adello` and its CIFAR configurations. As
    there, labeled images that are unlabeled ones too do not count in the estimate. With `target: labeled` it is UDAL
    (WACV 2023), which takes the unlabeled prior to be the labeled one. (That repository's `udal` has the labeled prior
    in the target alone, and the estimate in the numerator of the unlabeled shift.)

    Args:
        target: Unlabeled prior. None is the estimate, `labeled` the labeled prior (UDAL); or K numbers in any scale,
            the path of a `prior.json` that `UnlabeledPriorEstimator` wrote, or `oracle` for the true distribution.
        momentum: Weight in [0, 1) of the previous estimate in each step.
        alpha_min: Last exponent of the prior in the target, above 0 and at most 1, which aligns with the prior itself.
        power: Power of the share of the training, above 0: larger ones flatten later.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    balances = True
    corrects_prior = True

    def __init__(
        self,
        target: str | list[float] | None = None,
        momentum: float = 0.999,
        alpha_min: float = 0.1,
        power: float = 2.0,
    ) -> None:
        check_target(target)
        check_positive_share("alpha_min", alpha_min)
        check_positive("power", power)
        self.target = target
        self.alpha_min = alpha_min
        self.power = power
        self._prior = RunningPrior(1, momentum)  # that of all classes comes in `setup`
        self._given: Tensor | None = None
        self._labeled_prior = torch.empty(0)
        self._labeled_rows = 0  # in front of the unlabeled set
        self._progress: Callable[[], float] = float
        self._shifts: tuple[Tensor, Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method, and take the labeled prior and a target from the data.

        Raises:
            SettingsError: The method has no pseudo-labels, or the target cannot be used (see `unlabeled_totals`).
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            raise SettingsError(f"FlexDA shifts the losses of pseudo-labels, and {type(pl_module).__name__} has none")
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._prior = RunningPrior(pl_module.num_classes, self._prior.momentum)
        self._labeled_prior = _shares([float(count) for count in data.class_counts], data)
        if self.target is not None:
            self._given = _shares(None if self.target == LABELED else self.target, data)
        self._labeled_rows = data.labeled_in_front
        self._progress = partial(progress, trainer)
        pl_module.add_refiner(self, before_sharpening=True)
        pl_module.add_shift(self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what corrects the same, and a training without an end.

        Raises:
            SettingsError: The method or another callback corrects for a class prior, or the trainer sets no end.
        """
        check_only_correction(self, trainer, pl_module)
        self._progress()

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Compute the shifts of this step, and add its predictions to the estimate; return the rows as they are."""
        self._move(probs.device)
        prior, alpha = self.unlabeled_prior(), flattening(self._progress(), self.alpha_min, self.power)
        self._shifts = flexda_shift(self._labeled_prior, prior, alpha), flexda_shift(prior, prior, alpha)
        self._prior.update(probs, (index >= self._labeled_rows).float())
        return probs

    def unlabeled_prior(self) -> Tensor:
        """Return the prior of the unlabeled images as it is given or estimated now, `float32 [K]`."""
        return self._prior.probs if self._given is None else self._given

    def labeled_shift(self) -> Tensor | None:
        """See `LossShift.labeled_shift`."""
        return None if self._shifts is None else self._shifts[0]

    def unlabeled_shift(self) -> Tensor | None:
        """See `LossShift.unlabeled_shift`."""
        return None if self._shifts is None else self._shifts[1]

    def _move(self, device: torch.device) -> None:
        """Move the priors to the device, in the first step; later it does nothing."""
        self._prior.to(device)
        self._labeled_prior = self._labeled_prior.to(device)
        self._given = None if self._given is None else self._given.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return the estimate, for a checkpoint."""
        return self._prior.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the estimate of a checkpoint."""
        self._prior = RunningPrior(len(state_dict["probs"]), self._prior.momentum)
        self._prior.load_state_dict(state_dict)


def _shares(target: str | list[float] | None, data: LabeledUnlabeledDataModule) -> Tensor:
    totals = unlabeled_totals(target, data)
    return (totals / totals.sum()).float()


def flattening(share: float, alpha_min: float, power: float) -> float:
    """Compute the exponent `1 - (1 - alpha_min) share^power` of the prior, at a share of the training in [0, 1]."""
    return 1 - (1 - alpha_min) * float(share**power)


def flexda_shift(prior: Tensor, unlabeled_prior: Tensor, alpha: float) -> Tensor:
    """Compute `log((prior + 1e-9) / (target + 1e-9))`, `[K]`, where `target` is `unlabeled_prior^alpha`, normalized."""
    target = unlabeled_prior**alpha
    target = target / target.sum()
    return ((prior + FLOOR) / (target + FLOOR)).log()
