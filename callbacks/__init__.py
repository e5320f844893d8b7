"""Class-imbalance remedies, reports and checkpoints as callbacks."""

from callbacks.darp import DARP
from callbacks.last_evaluations import LastEvaluations
from callbacks.logit_adjustment import LogitAdjustment
from callbacks.prior_estimation import UnlabeledPriorEstimator
from callbacks.pseudo_label_monitor import PseudoLabelMonitor
from lightning_modules.distribution_alignment import DistributionAlignment

__all__ = [
    "DARP",
    "DistributionAlignment",
    "LastEvaluations",
    "LogitAdjustment",
    "PseudoLabelMonitor",
    "UnlabeledPriorEstimator",
]
