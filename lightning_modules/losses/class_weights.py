"""Weights of classes in the loss, and the time from which they apply."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_below_one, check_count
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.losses.base import check_every_class

_REACHABLE = "start before the end, or give start_share"


class ClassWeights(Described):
    """Weights of K classes, with mean 1.

    Attributes:
        normalized: Whether the mean of a batch divides by the sum of its weights, as `torch.nn.CrossEntropyLoss` does.
            False divides by the number of images, so that a batch with rare classes makes a larger step.
    """

    normalized: bool = True

    @abstractmethod
    def weights(self, class_counts: Tensor) -> Tensor:
        """Compute weights `float32 [K]` from the number of labeled images of each class, `int64 [K]`.

        Raises:
            SettingsError: A class has no images, and no weight is defined for it.
        """

    def active(self, method: ImageModule) -> bool:
        """Return whether the weights apply in the method's current or next step."""
        return True

    def check(self, method: ImageModule) -> None:
        """Raise an error if the weights would never apply in the training; called when it is set up."""


class InverseWeights(ClassWeights):
    """Weights in proportion to `1 / n_k`, n_k the number of labeled images of class k.

    Args:
        normalized: Whether the mean of a batch divides by the sum of its weights. False divides by the number of
            images, as bbuing9/DARP `train_crt.py` does.
    """

    def __init__(self, normalized: bool = True) -> None:
        self.normalized = normalized

    def weights(self, class_counts: Tensor) -> Tensor:
        """See `ClassWeights.weights`."""
        check_every_class("InverseWeights", class_counts)
        return with_mean_one(1 / class_counts.double())


class EffectiveNumberWeights(ClassWeights):
    """Weights in proportion to `(1 - beta) / (1 - beta^n_k)`, the inverse of the effective number of samples.

    Cui et al. 2019 (arXiv 1901.05555), section 3.

    Args:
        beta: Hyperparameter in [0, 1): 0 weighs all classes equally, and towards 1 the weights become those of
            `InverseWeights`. LDAM-DRW and imbalanced-semi-self use 0.9999.

    Raises:
        SettingsError: `beta` lies outside [0, 1).
    """

    def __init__(self, beta: float = 0.9999) -> None:
        check_below_one("beta", beta, " (towards 1 it is InverseWeights)")
        self.beta = beta

    def weights(self, class_counts: Tensor) -> Tensor:
        """See `ClassWeights.weights`."""
        check_every_class("EffectiveNumberWeights", class_counts)
        exponent = class_counts.double() * (math.log(self.beta) if self.beta else -math.inf)
        return with_mean_one(-1 / torch.expm1(exponent))


class DeferredReweighting(ClassWeights):
    """Deferred re-weighting (DRW): no class weights at first, then those of another object.

    Cao et al. 2019 (arXiv 1906.07413), algorithm 1: representations form better without weights, which are switched on
    with the small learning rate. The authors' code starts at epoch 160 of 200, where the rate falls: a `start_share` of
    0.8. Exactly one start must be given.

    The switch follows from the number of steps done, so a resumed run switches at the same step.

    Args:
        weights: Class weights that apply from the start on; None is `EffectiveNumberWeights()`, as in the authors'
            code.
        start_epoch: Number of epochs without weights, at least 0.
        start_step: Number of optimizer steps without weights, at least 0.
        start_share: Share of the training without weights, in [0, 1). It counts steps as the milestones of `StepDecay`
            do.

    Raises:
        SettingsError: Not exactly one start is given, or it lies outside its domain.
    """

    def __init__(
        self,
        weights: ClassWeights | None = None,
        start_epoch: int | None = None,
        start_step: int | None = None,
        start_share: float | None = None,
    ) -> None:
        starts = {"start_epoch": start_epoch, "start_step": start_step, "start_share": start_share}
        given = {name: value for name, value in starts.items() if value is not None}
        if len(given) != 1:
            raise SettingsError(f"DeferredReweighting was given {given or 'no start'}; it needs one of {list(starts)}")
        if start_epoch is not None:
            check_count("start_epoch", start_epoch, 0)
        if start_step is not None:
            check_count("start_step", start_step, 0)
        if start_share is not None:
            check_below_one("start_share", start_share)
        self.deferred = weights or EffectiveNumberWeights()
        self.normalized = self.deferred.normalized
        self.start_epoch = start_epoch
        self.start_step = start_step
        self.start_share = start_share

    def weights(self, class_counts: Tensor) -> Tensor:
        """Compute the deferred weights; see `ClassWeights.weights`."""
        return self.deferred.weights(class_counts)

    def active(self, method: ImageModule) -> bool:
        """See `ClassWeights.active`."""
        started = (
            (self.start_epoch is not None and method.current_epoch >= self.start_epoch)
            or (self.start_step is not None and method.global_step >= self.start_step)
            or (self.start_share is not None and method.global_step / method.total_steps() >= self.start_share)
        )
        return started and self.deferred.active(method)

    def check(self, method: ImageModule) -> None:
        """See `ClassWeights.check`.

        Raises:
            SettingsError: The start is at or after the end of the training; the message says when that is.
        """
        if self.start_epoch is not None and method.total_epochs() <= self.start_epoch:
            raise SettingsError(
                f"start_epoch is {self.start_epoch}, and the training has {method.total_epochs()} epochs; {_REACHABLE}"
            )
        if self.start_step is not None and method.total_steps() <= self.start_step:
            raise SettingsError(
                f"start_step is {self.start_step}, and the training has {method.total_steps()} steps; {_REACHABLE}"
            )


def with_mean_one(weights: Tensor) -> Tensor:
    """Scale `weights [K]` to mean 1, as the authors do: `float32 [K]`."""
    return (weights * (len(weights) / weights.sum())).float()
