"""Optimizers and schedules with published defaults, and the parameter groups of weight decay."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler


class FixMatchSGD(SGD):
    """SGD with FixMatch's defaults (arXiv 2001.07685, table 4).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Momentum.
        weight_decay: L2 penalty. The paper's 5e-4 times `l2_loss = w**2 / 2` is torch's 5e-4.
        nesterov: Nesterov momentum.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        nesterov: bool = True,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


class StepSchedule(LRScheduler):
    """A learning rate that is a pure function of step and total steps: base rate times `factor`.

    Args:
        optimizer: The optimizer.
        total_steps: Length of the training in optimizer steps; None takes the trainer's.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None) -> None:
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, progress: float) -> float:
        """Factor at a progress of 0 (start) to 1 (end of training)."""
        return 1.0

    def get_lr(self) -> list[float | Any]:
        """Learning rate of each group at the present step."""
        progress = min(1.0, self.last_epoch / self.total_steps) if self.total_steps else 0.0
        return [rate * self.factor(progress) for rate in self.base_lrs]


class CosineDecay(StepSchedule):
    """FixMatch's schedule: `cos(7 pi s / (16 S))` at step s of S, which ends at a factor of 0.195.

    Source: arXiv 2001.07685 section 2.4 and google-research/fixmatch `fixmatch.py`.

    Args:
        optimizer: The optimizer.
        total_steps: See `StepSchedule`.
        cycles: Quarter-turn share of the cosine: `cos(cycles * pi * progress)`.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, cycles: float = 7 / 16) -> None:
        self.cycles = cycles
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        return math.cos(self.cycles * math.pi * progress)


class StepDecay(StepSchedule):
    """Divides the rate by ten at shares of the training.

    Args:
        optimizer: The optimizer.
        total_steps: See `StepSchedule`.
        milestones: Shares in (0, 1); bbuing9/DARP `train_base_estim.py` has 0.8 and 0.9.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int | None = None, milestones: tuple[float, ...] = (0.8, 0.9)
    ) -> None:
        self.milestones = list(milestones)
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        return float(0.1 ** sum(progress >= milestone for milestone in self.milestones))


class WarmupStepDecay(StepSchedule):
    """Rises in five stairs, then divides the rate by a hundred at shares of the training.

    YyzHarry/imbalanced-semi-self `utils.adjust_learning_rate`, also kaidic/LDAM-DRW `cifar_train.py`: of 200
    epochs, the first five at 1/5 to 5/5 of the rate, divided by 100 from epoch 160 on and by 10,000 from 180 on.

    Args:
        optimizer: The optimizer.
        total_steps: See `StepSchedule`.
        warmup: Share of the training below the full rate; 0 for none.
        milestones: Shares in (0, 1).
    """

    STAIRS = 5

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup: float = 5 / 200,
        milestones: tuple[float, ...] = (160 / 200, 180 / 200),
    ) -> None:
        self.warmup = warmup
        self.milestones = list(milestones)
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        if progress < self.warmup:
            stair = math.floor(self.STAIRS * progress / self.warmup + 1e-9)  # an edge may be a rounding error below
            return (1 + stair) / self.STAIRS
        return float(0.01 ** sum(progress >= milestone for milestone in self.milestones))


class CosineAnnealing(StepSchedule):
    """Half a cosine from the full rate to zero: `(1 + cos(pi progress)) / 2`.

    Loshchilov and Hutter 2017 (arXiv 1608.03983); facebookresearch/moco `main_moco.py` (`--cos`), once an epoch there.
    """

    def factor(self, progress: float) -> float:
        """See `StepSchedule.factor`."""
        return (1 + math.cos(math.pi * progress)) / 2


def parameter_groups(module: nn.Module, decay_norm_and_bias: bool = False) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: with the optimizer's weight decay, and without any.

    Args:
        module: Its parameters.
        decay_norm_and_bias: Also decay normalization weights and biases (parameters of one dimension). The
            authors of FixMatch decay kernels only.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if decay_norm_and_bias:
        return [{"params": parameters}]
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if p.ndim > 1]}]
    plain = [p for p in parameters if p.ndim <= 1]
    return groups + [{"params": plain, "weight_decay": 0.0}] if plain else groups
