"""ACR's adjustment of pseudo-labels by the labeled prior, as strong as the classes of the unlabeled images need it."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_below_one, check_choice, check_count
from tailmatch.datamodules.splitting.class_ranks import class_ranks
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift
from tailmatch.lightning_modules.training.distributed import sum_over_processes

FLOOR = 1e-12
"""Added to `prior^tau` before the logarithm, so that a class without images has a finite shift (authors' code)."""

SMALLEST = 1e-12
"""The least share of a class in a distance: a class that is not seen for thousands of steps has an average of 0."""

Estimate = Literal["presence", "counts"]
"""What a step shows of the unlabeled classes: which have a confident image, or how many images each has."""


class AdaptiveAdjustment(nn.Module):
    r"""A refiner of pseudo-labels, `softmax(z - tau log prior)`, whose `tau` follows an estimate of their classes.

    The labeled prior pi, its reverse, in which the rarest class has the share of the most frequent one, and the uniform
    prior are three anchors for the class frequencies u of the unlabeled images. After `warmup_steps` steps, each step
    moves u towards those of its confident predictions, and after each further `every` steps

        tau = tau_max * softmax(mean distances of u from pi, uniform, reverse)[pi]

    so that tau is near 0 if u is near pi, and large if it is near the reverse. A distance is the mean of both
    Kullback-Leibler divergences. As in the authors' code, tau is `tau_max` during the warm-up, and `tau_max / 3`, the
    value of equal distances, during the first interval after it.

    ACR (Wei and Gan, CVPR 2023); Gank0078/ACR `train.py`. Differences: the reverse goes by rank (theirs: by the number
    of the class), and confident predictions are those of all processes. Where classes occur several times in a batch,
    their vector of present classes depends on which image comes last; here a class is present if any of its images is
    confident. Where a class is never seen, their tau stays as it is (NaN); here the distances have a `SMALLEST` share.

    Args:
        num_classes: Number of classes K.
        tau_max: Largest strength, at least 0.
        momentum: Weight of the previous estimate u, in [0, 1).
        every: Number of steps between changes of tau, at least 1.
        warmup_steps: Number of steps before u is estimated, at least 0.
        estimate: What a step shows of the unlabeled classes: `presence`, each class with a confident image alike, as in
            the authors' code; or `counts` of confident images. Presence makes long tails look shorter.
        adaptive: Whether tau changes; it stays `tau_max` otherwise, and the three arguments above have no effect.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    prior: Tensor
    tau: Tensor
    probs: Tensor
    distances: Tensor
    steps: Tensor

    def __init__(
        self,
        num_classes: int,
        tau_max: float = 2.0,
        momentum: float = 0.99,
        every: int = 500,
        warmup_steps: int = 3000,
        estimate: Estimate = "presence",
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_at_least("tau", tau_max, 0)
        check_below_one("momentum", momentum)
        check_count("every", every)
        check_count("warmup_steps", warmup_steps, 0)
        check_choice("estimate", estimate, ("presence", "counts"))
        self.tau_max = float(tau_max)
        self.momentum = momentum
        self.every = every
        self.warmup_steps = warmup_steps
        self.estimate = estimate
        self.adaptive = adaptive
        self.register_buffer("prior", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("tau", torch.tensor(self.tau_max))
        self.register_buffer("probs", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("distances", torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def begin(self, counts: Tensor) -> None:
        """Take the labeled class counts `[K]`; a method calls this in `begin_fit`."""
        self.prior.copy_(counts / counts.sum())

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Adjust predictions `[B, K]`: see `PseudoLabelRefiner.refine`."""
        return (probs.log() - log_shift(self.prior, self.tau, FLOOR)).softmax(dim=1)

    @torch.no_grad()
    def update(self, labels: Tensor, confident: Tensor) -> None:
        """Count the predictions of a step, and change tau if an interval ends; call it on all processes.

        Args:
            labels: Predicted classes `int64 [B]`.
            confident: Which rows count, `bool [B]`.
        """
        if not self.adaptive:
            return
        classes = functional.one_hot(labels, len(self.prior))
        found = sum_over_processes((classes * confident[:, None]).sum(dim=0).float())
        if self.estimate == "presence":
            found = (found > 0).float()
        total = found.sum()
        counts = (self.steps >= self.warmup_steps) & (total > 0)
        moved = self.momentum * self.probs + (1 - self.momentum) * found / total.clamp(min=1)
        self.probs.copy_(torch.where(counts, moved, self.probs))
        self.distances += torch.where(counts, anchor_distances(self.probs, self.prior), 0.0)
        self.steps += 1
        due = (self.steps >= self.warmup_steps) & ((self.steps - self.warmup_steps) % self.every == 0)
        tau = self.tau_max * (self.distances / self.every).softmax(dim=0)[0]
        self.tau.copy_(torch.where(due, tau, self.tau))
        self.distances.copy_(torch.where(due, 0.0, self.distances))


def anchor_distances(estimate: Tensor, prior: Tensor) -> Tensor:
    """Compute the distances `[3]` of class frequencies `[K]` from a prior `[K]`, the uniform one and the reverse."""
    order = class_ranks(prior).argsort()
    reverse = torch.empty_like(prior)
    reverse[order] = prior[order.flip(0)]
    anchors = torch.stack([prior, torch.full_like(prior, 1 / len(prior)), reverse]).clamp(min=SMALLEST)
    estimate = estimate.clamp(min=SMALLEST)
    # KL(a, u) + KL(u, a) = sum of (a - u) (log a - log u)
    return ((anchors - estimate) * (anchors.log() - estimate.log())).sum(dim=1) / 2
