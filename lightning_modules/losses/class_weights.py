"""Weights of classes in the loss, and when they begin."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.losses.base import check_every_class

_REACHABLE = "start before the end, or give start_share"


class ClassWeights(Described):
    """Weights of K classes, with mean 1."""

    @abstractmethod
    def weights(self, class_counts: Tensor) -> Tensor:
        """Weights `float32 [K]` from the labeled images of each class, `int64 [K]`.

        Raises:
            SettingsError: They have no value for a class without images.
        """

    def active(self, method: ImageModule) -> bool:
        """Whether they hold in the step that the method is about to take, or taking."""
        return True

    def check(self, method: ImageModule) -> None:
        """Refuse a training in which they never hold; called when it is set up."""


class InverseWeights(ClassWeights):
    """In proportion to `1 / n_k`."""

    def weights(self, class_counts: Tensor) -> Tensor:
        """See `ClassWeights.weights`."""
        check_every_class("InverseWeights", class_counts)
        return with_mean_one(1 / class_counts.double())


class EffectiveNumberWeights(ClassWeights):
    """In proportion to `(1 - beta) / (1 - beta^n_k)`, the inverse of the effective number of samples.

    Cui et al. 2019 (arXiv 1901.05555), section 3.

    Args:
        beta: In [0, 1); 0 weighs all classes equally, towards 1 it is `InverseWeights`. 0.9999 as in LDAM-DRW and
            imbalanced-semi-self.
    """

    def __init__(self, beta: float = 0.9999) -> None:
        if not 0 <= beta < 1:
            raise SettingsError(f"beta is {beta}; it must be in [0, 1) (towards 1 it is InverseWeights)")
        self.beta = beta

    def weights(self, class_counts: Tensor) -> Tensor:
        """See `ClassWeights.weights`."""
        check_every_class("EffectiveNumberWeights", class_counts)
        exponent = class_counts.double() * (math.log(self.beta) if self.beta else -math.inf)
        return with_mean_one(-1 / torch.expm1(exponent))


class DeferredReweighting(ClassWeights):
    """No weights at first, then those of another object: DRW.

    Cao et al. 2019 (arXiv 1906.07413), algorithm 1: representations form better without weights, which come in with
    the small learning rate. Their code starts at epoch 160 of 200, where the rate falls: a `start_share` of 0.8.

    The switch follows from the number of steps done, so it is at the same step after a resume.

    Args:
        weights: What is deferred; None is `EffectiveNumberWeights()`, as in the authors' code.
        start_epoch: Number of epochs without weights.
        start_step: Number of optimizer steps without weights.
        start_share: Share of the training without weights, in [0, 1), compared as `StepDecay` compares its milestones.

    Raises:
        SettingsError: Not exactly one start is given.
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
        for name, value in given.items():
            check_at_least(name, value, 0)
        if start_share is not None and start_share >= 1:
            raise SettingsError(f"start_share is {start_share}; it must be in [0, 1)")
        self.deferred = weights or EffectiveNumberWeights()
        self.start_epoch = start_epoch
        self.start_step = start_step
        self.start_share = start_share

    def weights(self, class_counts: Tensor) -> Tensor:
        """Those that are deferred; see `ClassWeights.weights`."""
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
        """Refuse a start at or after the end.

        Raises:
            SettingsError: It says when the training ends.
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
    """`float32 [K]` with the proportions of `weights [K]` and the sum K, as the authors normalize."""
    return (weights * (len(weights) / weights.sum())).float()
