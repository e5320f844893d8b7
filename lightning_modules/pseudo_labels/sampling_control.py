"""Sampling control of SC-SSL (arXiv 2511.18773): thresholds by the distribution that an unlabeled set is nearest to."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import check_at_least, check_share
from tailmatch.datamodules.splitting.class_ranks import class_ranks


class SamplingControl(nn.Module):
    """Thresholds of the output head and the expansive head, as state that is saved.

    All begin at `threshold`, until the classes of the unlabeled images are counted (`begin`).

    Args:
        num_classes: Number of classes K.
        threshold: Threshold in [0, 1] of the frequent classes.
        bias_limit: Bias above which the thresholds of a class decrease, at least 0.
        step: Decrease of a threshold, at least 0.
        floor: Smallest threshold in [0, 1] that a decrease leads to.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    thresholds: Tensor
    anchor: Tensor

    def __init__(self, num_classes: int, threshold: float, bias_limit: float, step: float, floor: float) -> None:
        super().__init__()
        check_at_least("bias_limit", bias_limit, 0)
        check_at_least("threshold_step", step, 0)
        check_share("floor", floor)
        self.threshold = threshold
        self.bias_limit = bias_limit
        self.step = step
        self.floor = floor
        self.register_buffer("thresholds", torch.full((2, num_classes), float(threshold)))
        self.register_buffer("anchor", torch.tensor(-1))

    @torch.no_grad()
    def begin(self, counts: Tensor, class_counts: Tensor) -> str:
        """Take the first thresholds from the nearest of the `anchors`; return what was found, for the log.

        Args:
            counts: Number of unlabeled images that are predicted as each class, `[K]`, those of all processes.
            class_counts: Labeled class counts `[K]`, each above 0.
        """
        candidates = anchors(class_counts)
        distances = divergences(counts, candidates).tolist()
        nearest = min(range(len(candidates)), key=distances.__getitem__)
        found = candidates[nearest]
        self.anchor.fill_(nearest)
        self.thresholds.copy_(first_thresholds(found.level, found.gamma, class_counts, self.threshold))
        listed = ", ".join(f"{each.name} {far:.2f}" for each, far in zip(candidates, distances, strict=True))
        shown = ", ".join(f"{count:.0f}" for count in counts.tolist())
        return f"predicted unlabeled images of each class: {shown}; {found.name} is nearest (divergences: {listed})"

    @torch.no_grad()
    def relax(self, bias: Tensor) -> None:
        """Decrease the thresholds of the classes whose bias `[K]` is above the limit, once they are counted."""
        lower = torch.minimum(self.thresholds, (self.thresholds - self.step).clamp(min=self.floor))
        self.thresholds.copy_(torch.where((bias > self.bias_limit) & (self.anchor >= 0), lower, self.thresholds))


@dataclass(frozen=True)
class Anchor:
    """A class distribution that an unlabeled set may be near.

    Attributes:
        name: The name of the distribution in the paper.
        prior: Class frequencies `float64 [K]`, whose sum is 1.
        level: The paper's c, from 4 to 6: the larger, the lower the first thresholds.
    """

    name: str
    prior: Tensor
    level: int

    @property
    def gamma(self) -> float:
        """Ratio of its largest class to its smallest."""
        return float(self.prior.max() / self.prior.min())


def anchors(class_counts: Tensor) -> list[Anchor]:
    """Make the five anchors of an unlabeled set from the labeled class counts `[K]`, each above 0.

    They are the labeled distribution, the uniform one, the labeled one with its ranks reversed, a Gaussian of the
    labeled rank with mean (K - 1) / 2 and standard deviation K / 6, and its inverse. The paper has no formula for the
    last one: here it is the reciprocal of the Gaussian, as the reverse of an exponential long tail is its reciprocal.
    """
    counts = class_counts.double().cpu()
    ranks = class_ranks(counts)
    gaussian = torch.exp(-(((ranks - (len(counts) - 1) / 2) / (len(counts) / 6)) ** 2) / 2)
    made = {
        "consistent": (counts, 4),
        "uniform": (torch.ones_like(counts), 5),
        "inverse": (counts.sort().values[ranks], 6),
        "Gaussian": (gaussian, 4),
        "inverse Gaussian": (1 / gaussian, 6),
    }
    return [Anchor(name, prior / prior.sum(), level) for name, (prior, level) in made.items()]


def divergences(counts: Tensor, candidates: list[Anchor]) -> Tensor:
    """Compute `KL(counts / sum counts || prior)` of class counts `[K]` to each of A anchors, `float64 [A]`."""
    shares = counts.double().cpu() / counts.sum().cpu()
    return torch.stack([torch.xlogy(shares, shares / each.prior).sum() for each in candidates])


def first_thresholds(level: int, gamma: float, class_counts: Tensor, threshold: float = 0.95) -> Tensor:
    """Compute the thresholds `float32 [2, K]` with which the output head and the expansive head begin.

        rho_output = threshold - (c - 4) / 10 * min(gamma / 50, 1)
        rho_expansive = threshold - (c - 3) / 5 * min(gamma / 20, 1)

    for all classes but the K // 2 with the most labeled images, whose thresholds are `threshold`.

    Args:
        level: The anchor's c.
        gamma: The anchor's ratio of its largest class to its smallest.
        class_counts: Labeled class counts `[K]`.
        threshold: Threshold of the frequent classes.
    """
    output = threshold - (level - 4) / 10 * min(gamma / 50, 1)
    expansive = threshold - (level - 3) / 5 * min(gamma / 20, 1)
    frequent = class_ranks(class_counts.cpu()) < len(class_counts) // 2
    return torch.where(frequent, threshold, torch.tensor([[output], [expansive]])).clamp(min=0)
