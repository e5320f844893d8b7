"""Learning rate schedules with published defaults, as functions of the share of the training that is done."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tailmatch.datamodules.arguments import (
    SettingsError,
    check_at_least,
    check_below_one,
    check_between,
    check_count,
    check_each,
)


def check_schedule(schedule: object) -> None:
    """Refuse a schedule that waits for a plateau: its state of an epoch follows the epoch's checkpoint.

    Args:
        schedule: A schedule, its class, or the name of the class.

    Raises:
        SettingsError: The schedule is a `ReduceLROnPlateau`.
    """
    if isinstance(schedule, ReduceLROnPlateau) or str(schedule).rpartition(".")[2] == "ReduceLROnPlateau":
        raise SettingsError(PLATEAU)


PLATEAU = (
    "lr_scheduler is ReduceLROnPlateau, with which a resumed training would differ from an uninterrupted one; it must "
    "be a function of the step, such as CosineDecay or StepDecay"
)


class StepSchedule(LRScheduler):
    """A learning rate that is a pure function of step and total steps: base rate times `factor`.

    Args:
        optimizer: Optimizer whose learning rates are scheduled.
        total_steps: Length of the training in optimizer steps; None is that of the trainer.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None) -> None:
        if total_steps is not None:
            check_count("total_steps", total_steps)
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, progress: float) -> float:
        """Return the factor at a progress of 0 (start of training) to 1 (end)."""
        return 1.0

    def get_lr(self) -> list[float | Any]:
        """Compute the learning rate of each group at the present step."""
        progress = min(1.0, self.last_epoch / self.total_steps) if self.total_steps else 0.0
        return [rate * self.factor(progress) for rate in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the step of a saved state. Length and options are those of the present training."""
        super().load_state_dict({key: state_dict[key] for key in ("last_epoch", "_step_count")})
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


class CosineDecay(StepSchedule):
    """FixMatch's schedule: `cos(7 pi s / (16 S))` at step s of S, which ends at a factor of 0.195.

    Source: arXiv 2001.07685 section 2.4 and google-research/fixmatch `fixmatch.py`.

    Args:
        optimizer: Optimizer whose learning rates are scheduled.
        total_steps: Length of the training in optimizer steps; None is that of the trainer.
        cycles: Length c of the cosine in half turns, in [0, 0.5]: the factor is `cos(c * pi * progress)`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, cycles: float = 7 / 16) -> None:
        check_between("cycles", cycles, 0, 0.5, ": beyond it the learning rate would be negative")
        self.cycles = cycles
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        return math.cos(self.cycles * math.pi * progress)


class StepDecay(StepSchedule):
    """A learning rate that falls at given shares of the training, with an optional warm-up in equal stairs.

    YyzHarry/imbalanced-semi-self `utils.py` (arXiv 2006.07529), and LDAM-DRW before it, has 200 epochs: rates of 1/5 to
    5/5 in the first five, x 0.01 from epoch 160 on and x 0.0001 from epoch 180 on. At any length that is
    `milestones=(0.8, 0.9), factors=(0.01, 0.0001), warmup=0.025`.

    Args:
        optimizer: Optimizer whose learning rates are scheduled.
        total_steps: Length of the training in optimizer steps; None is that of the trainer.
        milestones: Shares of the training, rising in (0, 1), at which the rate changes; bbuing9/DARP
            `train_base_estim.py` has 0.8 and 0.9.
        factors: Factors of the base rate, at least 0, one from each milestone on; None divides by ten at each
            milestone.
        warmup: Share of the training, in [0, 1), in which the rate rises; 0 for no warm-up.
        warmup_stairs: Number n of stairs of the warm-up, at least 1: the first is 1/n of the base rate, the last the
            whole rate. The authors' five epochs are five stairs; a large number approximates a linear warm-up.

    Raises:
        SettingsError: An argument lies outside its domain, or the warm-up extends beyond the first milestone.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        milestones: tuple[float, ...] = (0.8, 0.9),
        factors: tuple[float, ...] | None = None,
        warmup: float = 0.0,
        warmup_stairs: int = 5,
    ) -> None:
        check_each("milestones", milestones, check_below_one)
        if list(milestones) != sorted(set(milestones)) or not all(0 < share < 1 for share in milestones):
            raise SettingsError(f"milestones are {list(milestones)}; they must be rising shares in (0, 1)")
        if factors is not None:
            check_each("factors", factors, check_at_least, 0)
        if factors is not None and len(factors) != len(milestones):
            raise SettingsError(
                f"factors are {list(factors)}; there must be one for each milestone of {list(milestones)}"
            )
        check_below_one("warmup", warmup)
        if warmup > min(milestones, default=1.0):
            raise SettingsError(f"warmup is {warmup}; it must end before the first milestone")
        check_count("warmup_stairs", warmup_stairs)
        self.milestones = list(milestones)
        self.factors = [0.1 ** (k + 1) for k in range(len(milestones))] if factors is None else list(factors)
        self.warmup = warmup
        self.warmup_stairs = warmup_stairs
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        if progress < self.warmup:
            climbed = int(progress / self.warmup * self.warmup_stairs + 1e-9)  # a step on an edge is past it
            return (climbed + 1) / self.warmup_stairs
        passed = sum(progress >= milestone for milestone in self.milestones)
        return self.factors[passed - 1] if passed else 1.0


class CosineAnnealing(StepSchedule):
    """Half a cosine from the full rate to zero: `(1 + cos(pi progress)) / 2`.

    Loshchilov and Hutter 2017 (arXiv 1608.03983); facebookresearch/moco `main_moco.py` (`--cos`), where the rate
    changes once per epoch.

    Args:
        optimizer: Optimizer whose learning rates are scheduled.
        total_steps: Length of the training in optimizer steps; None is that of the trainer.
    """

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        return (1 + math.cos(math.pi * progress)) / 2
