"""Optimizers, schedules, averaged weights, and the processes of a run."""

from tailmatch.lightning_modules.training.optimization import FixMatchSGD, MixMatchAdam, RetrainingSGD
from tailmatch.lightning_modules.training.schedules import CosineAnnealing, CosineDecay, StepDecay, StepSchedule

__all__ = [
    "CosineAnnealing",
    "CosineDecay",
    "FixMatchSGD",
    "MixMatchAdam",
    "RetrainingSGD",
    "StepDecay",
    "StepSchedule",
]
