"""Optimizers, schedules, averaged weights, and the processes of a run."""

from tailmatch.lightning_modules.training.optimization import (
    CosineAnnealing,
    CosineDecay,
    FixMatchSGD,
    MixMatchAdam,
    RetrainingSGD,
    StepDecay,
    StepSchedule,
)

__all__ = [
    "CosineAnnealing",
    "CosineDecay",
    "FixMatchSGD",
    "MixMatchAdam",
    "RetrainingSGD",
    "StepDecay",
    "StepSchedule",
]
