"""Optimizers, schedules, averaged weights, and the processes of a run."""

from typing import TYPE_CHECKING

from tailmatch.lazy import lazily

if TYPE_CHECKING:
    from tailmatch.lightning_modules.training.heap import keep_freed_memory
    from tailmatch.lightning_modules.training.optimization import FixMatchSGD, MixMatchAdam, RetrainingSGD
    from tailmatch.lightning_modules.training.schedules import CosineAnnealing, CosineDecay, StepDecay, StepSchedule
    from tailmatch.lightning_modules.training.tuning import Tuning

__all__ = [
    "CosineAnnealing",
    "CosineDecay",
    "FixMatchSGD",
    "MixMatchAdam",
    "RetrainingSGD",
    "StepDecay",
    "StepSchedule",
    "Tuning",
    "keep_freed_memory",
]

_HOMES = {
    "CosineAnnealing": "tailmatch.lightning_modules.training.schedules",
    "CosineDecay": "tailmatch.lightning_modules.training.schedules",
    "FixMatchSGD": "tailmatch.lightning_modules.training.optimization",
    "MixMatchAdam": "tailmatch.lightning_modules.training.optimization",
    "RetrainingSGD": "tailmatch.lightning_modules.training.optimization",
    "StepDecay": "tailmatch.lightning_modules.training.schedules",
    "StepSchedule": "tailmatch.lightning_modules.training.schedules",
    "Tuning": "tailmatch.lightning_modules.training.tuning",
    "keep_freed_memory": "tailmatch.lightning_modules.training.heap",
}

if not TYPE_CHECKING:  # for a type checker, the names above are all there are
    __getattr__, __dir__ = lazily(__name__, _HOMES)
