"""What a classification loss is, and the weighted mean over a batch."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.description import Described


class ClassificationLoss(Described, nn.Module):
    """A loss of each sample, and its mean over a batch under class weights.

    A loss that depends on the data takes it in `adapt`, which a method calls before training; what it keeps are
    buffers outside the state dict, for they follow from the data and the configuration.
    """

    def adapt(self, class_counts: Tensor, head: nn.Module) -> None:
        """Take the facts of the training; the default needs none.

        Args:
            class_counts: `int64 [K]` labeled images of each class.
            head: The network's last layer, which gives the logits.
        """

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, `[B]`, from `logits [B, K]` and `target int64 [B]`, before class weights."""

    def mean(
        self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Mean over the batch, `[]`, weighted by `class_weights [K]` of the targets and `weights [B]`, if given."""
        losses: Tensor = self(logits, target)
        if class_weights is not None:
            weights = class_weights[target] if weights is None else weights * class_weights[target]
        return losses.mean() if weights is None else weighted_mean(losses, weights)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """`sum(w * l) / sum(w)`, `[]`, of `losses [B]` and `weights [B]` (or both `[B, K]`).

    As torch's `cross_entropy(weight=...)` divides, which LDAM-DRW and imbalanced-semi-self call: a batch that
    happens to hold rare classes takes no longer step than another.
    """
    return (weights * losses).sum() / weights.sum()


def check_every_class(name: str, class_counts: Tensor) -> None:
    """Refuse class counts `[K]` with an empty class, for a loss that has no limit there.

    Raises:
        SettingsError: It names the classes.
    """
    empty = torch.nonzero(class_counts <= 0).flatten().tolist()
    if empty:
        raise SettingsError(
            f"{name} needs labeled images of every class, and there is none of class {', '.join(map(str, empty[:10]))}"
            f"{', ...' if len(empty) > 10 else ''} (of {len(class_counts)}): label some, or choose another"
        )
