"""Class-imbalance remedies, reports and checkpoints as callbacks."""

from callbacks.darp import DARP
from callbacks.last_evaluations import LastEvaluations
from callbacks.logit_adjustment import LogitAdjustment
from callbacks.prior_estimation import UnlabeledPriorEstimator
from callbacks.pseudo_label_monitor import PseudoLabelMonitor
from callbacks.pseudo_labels import PseudoLabelWriter

__all__ = [
    "DARP",
    "LastEvaluations",
    "LogitAdjustment",
    "PseudoLabelMonitor",
    "PseudoLabelWriter",
    "UnlabeledPriorEstimator",
]
