"""A labeled set that grows within one fit: labeled images, and unlabeled ones that won a vote (CPG)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.pseudo_labels.feature_copies import ClassSpread, copies_of
from tailmatch.lightning_modules.pseudo_labels.label_memory import Interval
from tailmatch.lightning_modules.pseudo_labels.vote_memory import VoteMemory


class Known(NamedTuple):
    """The images of a step whose class is known or may be: B labeled, then U unlabeled ones.

    Attributes:
        labels: Classes `int64 [B + U]`.
        targets: Targets, probs `[B + U, K]`.
        weights: For how many images of the set each stands, `float32 [B + U]`; 0 for one that is not accepted.
    """

    labels: Tensor
    targets: Tensor
    weights: Tensor


class GrowingSet(nn.Module):
    """The labeled images L and the accepted ones A: their counts, the votes, and the copies of their features.

    No loader changes. The mean over L and A is `(1 - r) mean_L + r mean_A` with `r = |A| / (|L| + |A|)`, so it is
    estimated from a batch of B labeled and U unlabeled images, of which each stands for `|L| / B` labeled images or
    `N / U` of N unlabeled ones, and counts if it is accepted.

    Args:
        num_classes: Number of classes K.
        feature_dim: Size of the features.
        warmup_steps: Number of steps without votes and copies, at least 0.
        every: Number of steps of a window of votes, at least 1.
        memory: The votes.
        copies: Copies of an image until images are accepted, and later of those of a class of middle frequency.

    Attributes:
        accepted: `float32 [K]`, the counts S of accepted images.
        copies: `float32 [K]`, the number of copies of an image of each class.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    accepted: Tensor
    copies: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        warmup_steps: int,
        every: int,
        memory: VoteMemory,
        copies: int,
    ) -> None:
        super().__init__()
        check_count("warmup_steps", warmup_steps, 0)
        check_count("every", every)
        check_count("copies", copies, 0)
        self.num_classes, self.warmup_steps = num_classes, warmup_steps
        self.drawn = copies
        self.memory = memory
        self.interval = Interval(every, warmup_steps % every)
        self.spread = ClassSpread(num_classes, feature_dim)
        self.register_buffer("accepted", torch.zeros(num_classes))
        self.register_buffer("copies", torch.full((num_classes,), float(copies)))

    def begin(self, images: int, steps: float) -> None:
        """Take the number of unlabeled images and the number of batches of the training.

        Raises:
            SettingsError: The training would end before images are accepted.
        """
        first = self.warmup_steps + self.interval.every
        if first >= steps:
            raise SettingsError(
                f"no image would be accepted: warmup_steps and every are {first} together, and the training has "
                f"{steps:g} steps; lower them, or train longer"
            )
        self.memory.adapt(images)

    @property
    def warms_up(self) -> bool:
        """Whether the present step belongs to the warm-up."""
        return self.interval.counted < self.warmup_steps

    def copy_weights(self) -> Tensor:
        """Return the weights of the features of each class, 1, and of their drawn copies, `float32 [K, 1 + drawn]`."""
        each = (self.copies / self.drawn)[:, None].expand(-1, self.drawn)
        return functional.pad(each, (1, 0), value=1.0)

    @torch.no_grad()
    def known(self, labels: Tensor, index: Tensor, class_counts: Tensor, label_smoothing: float) -> Known:
        """Find the classes, targets and weights of the images of a step.

        Args:
            labels: Classes of the labeled images, `int64 [B]`.
            index: Positions of the unlabeled images in their set, `int64 [U]`.
            class_counts: Labeled class counts `[K]`.
            label_smoothing: What the target of a labeled image leaves to other classes, in [0, 1).
        """
        own = self.memory.labels[index].long()
        weights = set_weights(len(labels), class_counts.sum(), own, len(self.memory.labels) - 1)
        targets = smoothed(labels, self.num_classes, label_smoothing)
        targets = torch.cat([targets, self.memory.targets(index, self.num_classes)])
        return Known(torch.cat([labels, own.clamp(min=0)]), targets, weights)

    @torch.no_grad()
    def end_step(self, features: Tensor, known: Known, class_counts: Tensor) -> None:
        """Count the step and its features `float32 [B + U, D]`; at the end of a window, accept images anew."""
        if self.drawn:
            self.spread.update(features, known.labels, known.weights)
        if self.interval.tick():
            if self.drawn:
                self.spread.close()
            if self.interval.counted > self.warmup_steps:
                self.memory.close()
                self.accepted.copy_(self.memory.counts(self.num_classes)[1:])
                self.copies.copy_(copies_of(class_counts + self.accepted, self.drawn))


def set_weights(batch: int, labeled: Tensor, own: Tensor, images: int) -> Tensor:
    """Compute for how many images of the grown set each of a step stands, `float32 [B + U]`; see `GrowingSet`.

    Args:
        batch: Number B of labeled images in the step.
        labeled: Number of labeled images in the set, `[]`.
        own: Labels of the unlabeled images of the step, `int64 [U]`, -1 for those outside the set.
        images: Number of all unlabeled images.
    """
    return torch.cat([labeled.expand(batch) / batch, (own >= 0) * (images / len(own))])


def smoothed(labels: Tensor, num_classes: int, share: float) -> Tensor:
    """Make targets `float32 [B, K]` with `1 - share` for the class and `share / (K - 1)` for every other one."""
    hot = functional.one_hot(labels, num_classes).float()
    return hot * (1 - share) + (1 - hot) * (share / (num_classes - 1))


def trusted_counts(accepted: Tensor, least: Tensor) -> Tensor:
    """Compute the counts S' by which votes are shifted, `float32 [K]`.

    A class of at most `least` accepted images has the smallest count of the others, and 1 if there is no other.

    Args:
        accepted: Counts of accepted images, `float32 [K]`.
        least: The smallest labeled class count, `[]`.
    """
    counted = accepted > least
    smallest = torch.where(counted, accepted, torch.inf).min()
    return torch.where(counted, accepted, torch.where(counted.any(), smallest, 1.0))
