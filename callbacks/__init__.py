"""Class-imbalance remedies, reports and checkpoints as callbacks."""

from callbacks.darp import DARP
from callbacks.darp_refinement import DARPRefinement
from callbacks.early_learning import EarlyLearningCurves
from callbacks.last_evaluations import LastEvaluations
from callbacks.logit_adjustment import LogitAdjustment
from callbacks.predictions import PredictionWriter
from callbacks.prior_estimation import UnlabeledPriorEstimator
from callbacks.pseudo_label_generator import PseudoLabelGenerator
from callbacks.pseudo_label_monitor import PseudoLabelMonitor
from callbacks.pseudo_labels import PseudoLabelWriter
from lightning_modules.distribution_alignment import DistributionAlignment

__all__ = [
    "DARP",
    "DARPRefinement",
    "DistributionAlignment",
    "EarlyLearningCurves",
    "LastEvaluations",
    "LogitAdjustment",
    "PredictionWriter",
    "PseudoLabelGenerator",
    "PseudoLabelMonitor",
    "PseudoLabelWriter",
    "UnlabeledPriorEstimator",
]
