"""Class priors that are estimated during a training, as state that is saved and summed over the processes.

A method hangs one on itself, so that its checkpoints contain it; a callback returns its `state_dict` in its own. All
processes have the same numbers at all times, and nothing waits for the device.
"""

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import check_at_least, check_below_one, check_count
from tailmatch.lightning_modules.training.distributed import mean_over_processes, sum_over_processes


class RunningPrior(nn.Module):
    """An exponential moving average of mean predictions, `probs <- m probs + (1 - m) mean`, which begins uniform.

    Args:
        num_classes: Number of classes K.
        momentum: Weight m of the previous average, in [0, 1).

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    probs: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.999) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_below_one("momentum", momentum)
        self.momentum = momentum
        self.register_buffer("probs", torch.full((num_classes,), 1 / num_classes))

    @torch.no_grad()
    def update(self, rows: Tensor, weights: Tensor | None = None) -> None:
        """Move towards the mean of predictions `[B, K]`, those of all processes; call it on all of them.

        Args:
            rows: Predictions `[B, K]`.
            weights: Weights of the rows in the mean, `float32 [B]`; None for equal ones. If all are 0 on all processes,
                the average stays where it is.
        """
        if weights is None:
            mean = mean_over_processes(rows)
        else:
            sums = sum_over_processes(torch.cat([soft_counts(rows, weights), weights.sum()[None]]))
            mean = torch.where(sums[-1] > 0, sums[:-1] / sums[-1], self.probs)
        self.probs.copy_(self.momentum * self.probs + (1 - self.momentum) * mean)


class RecentPrior(nn.Module):
    """The mean of the mean predictions of the last n batches, which begin uniform.

    Args:
        num_classes: Number of classes K.
        batches: Number n of batches, at least 1.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    means: Tensor
    steps: Tensor

    def __init__(self, num_classes: int, batches: int = 128) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("batches", batches)
        self.register_buffer("means", torch.full((batches, num_classes), 1 / num_classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def probs(self) -> Tensor:
        """The prior, `float32 [K]`."""
        return self.means.mean(dim=0)

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Replace the oldest batch by predictions `[B, K]`, those of all processes; call it on all of them."""
        place = (self.steps % len(self.means))[None]
        self.means.index_copy_(0, place, mean_over_processes(rows)[None])
        self.steps += 1


class IntervalPrior(nn.Module):
    """A prior that moves every n steps, towards the (soft) class counts of these steps, and is constant in between.

        probs <- m probs + (1 - m) counts / (sum counts + extra)

    Counts begin each interval as `start`. The prior begins uniform, or where `begin` sets it. SimPro (arXiv 2402.13505;
    LeapLabTHU/SimPro `train.py`) has m = 0.9, n = 500, and an `extra` of 1 for unlabeled images, of which none might be
    confident; `probs` then sums to less than 1, which adds a constant to a logit shift.

    Args:
        num_classes: Number of classes K.
        momentum: Weight m of the previous prior, in [0, 1).
        every: Number n of steps, at least 1.
        extra: What is added to the divisor, at least 0.
        start: Count of each class at the beginning of an interval, at least 0; CCL has 1, so that no class is lost.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    probs: Tensor
    counts: Tensor
    steps: Tensor

    def __init__(
        self, num_classes: int, momentum: float = 0.9, every: int = 500, extra: float = 0.0, start: float = 0.0
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_below_one("momentum", momentum)
        check_count("every", every)
        check_at_least("extra", extra, 0)
        check_at_least("start", start, 0)
        self.momentum = momentum
        self.every = every
        self.extra = extra
        self.start = start
        self.register_buffer("probs", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("counts", torch.full((num_classes,), float(start)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def begin(self, counts: Tensor) -> None:
        """Begin with a prior in proportion to class counts `[K]`; a method calls this in `begin_fit`."""
        self.probs.copy_(counts / counts.sum())

    @torch.no_grad()
    def update(self, counts: Tensor) -> None:
        """Add the class counts of a step, and move at the end of the interval; call it on all processes.

        Args:
            counts: Class counts `[K]` of this process' images, such as `soft_counts`.
        """
        self.counts += sum_over_processes(counts.float())
        self.steps += 1
        due = self.steps % self.every == 0
        total = self.counts.sum() + self.extra
        moved = self.momentum * self.probs + (1 - self.momentum) * self.counts / total
        self.probs.copy_(torch.where(due & (total > 0), moved, self.probs))
        self.counts.copy_(torch.where(due, self.start, self.counts))


def soft_counts(rows: Tensor, weights: Tensor) -> Tensor:
    """Sum rows `[B, K]` times their weights `[B]` to class counts `[K]`."""
    return (weights[:, None] * rows).sum(dim=0)


def log_shift(prior: Tensor, tau: float | Tensor = 1.0, floor: float = 0.0) -> Tensor:
    """Compute the logit shift `log(prior^tau + floor)`, `[K]`, of a prior `[K]`.

    Args:
        prior: Class frequencies; one that is 0 needs a floor.
        tau: Strength; one that is training state is a tensor `[]`.
        floor: What the authors of a method add before the logarithm, such as 1e-12.
    """
    return (prior**tau + floor).log() if floor else tau * prior.log()
