"""The base of classification losses, and the weighted mean over a batch."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.training.distributed import place, sum_over_processes


class ClassificationLoss(Described, nn.Module):
    """A loss for each sample, and its mean over a batch under class weights.

    A loss that depends on the data takes what it needs in `adapt`, which a method calls before training. It keeps that
    in buffers outside the state dict, since they follow from data and configuration.
    """

    balances: bool = False
    """Whether logits that are trained with it are those of equally frequent classes."""

    def adapt(self, class_counts: Tensor, head: nn.Module) -> None:
        """Take what the loss needs from the data and the network; the default needs nothing.

        Args:
            class_counts: Number of labeled images of each class, `int64 [K]`.
            head: The network's last layer, which outputs the logits.
        """

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute each sample's loss `[B]` from `logits [B, K]` and `target int64 [B]`, before class weights."""

    def mean(
        self,
        logits: Tensor,
        target: Tensor,
        class_weights: Tensor | None = None,
        weights: Tensor | None = None,
        normalized: bool = True,
    ) -> Tensor:
        """Compute the mean over the batch, `[]`, weighted if weights are given.

        Args:
            logits: Logits `[B, K]`.
            target: Classes `int64 [B]`.
            class_weights: Weights `[K]` of the classes; None for equal ones.
            weights: Weights `[B]` of the samples; None for equal ones.
            normalized: Whether to divide by the sum of the weights; False divides by the number of samples.
        """
        losses: Tensor = self(logits, target)
        if class_weights is not None:
            weights = class_weights[target] if weights is None else weights * class_weights[target]
        return losses.mean() if weights is None else weighted_mean(losses, weights, normalized)


def weighted_mean(losses: Tensor, weights: Tensor, normalized: bool = True) -> Tensor:
    """Compute `sum(w * l) / sum(w)`, `[]`, or `sum(w * l) / B`, of `losses [B]` and `weights [B]` (or both `[B, K]`).

    On W processes, the divisor is that of all processes by W. The mean of the processes, which data-parallel training
    takes, is then the weighted mean of the joint batch. Call it on all processes.

    torch's `cross_entropy(weight=...)`, which LDAM-DRW and imbalanced-semi-self call, divides in the same way: a batch
    that happens to contain rare classes does not make a larger step than another.
    """
    divisor = sum_over_processes(weights.sum()) / place()[1] if normalized else len(weights)
    return (weights * losses).sum() / divisor


def check_every_class(name: str, class_counts: Tensor) -> None:
    """Raise an error for class counts `[K]` with an empty class, for losses that are not defined there.

    Raises:
        SettingsError: A class has no labeled image; the message names the classes.
    """
    empty = torch.nonzero(class_counts <= 0).flatten().tolist()
    if empty:
        raise SettingsError(
            f"{name} needs labeled images of every class, and there is none of class {', '.join(map(str, empty[:10]))}"
            f"{', ...' if len(empty) > 10 else ''} (of {len(class_counts)}): label some, or choose another"
        )
