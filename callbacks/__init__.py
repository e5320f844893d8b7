"""Class-imbalance remedies, reports and checkpoints as callbacks."""

from tailmatch.callbacks.remedies.darp.callback import DARP, DARPRefinement
from tailmatch.callbacks.remedies.debiaspl import DebiasPL
from tailmatch.callbacks.remedies.head_warmup import HeadWarmup
from tailmatch.callbacks.remedies.logit_adjustment import LogitAdjustment
from tailmatch.callbacks.remedies.pseudo_label_generator import PseudoLabelGenerator
from tailmatch.callbacks.remedies.unlabeled_prior import UnlabeledPriorEstimator
from tailmatch.callbacks.reports.early_learning import EarlyLearningCurves
from tailmatch.callbacks.reports.last_evaluations import LastEvaluations
from tailmatch.callbacks.reports.pseudo_label_monitor import PseudoLabelMonitor
from tailmatch.callbacks.reports.self_training import SelfTrainingReport
from tailmatch.callbacks.writers.predictions import PredictionWriter
from tailmatch.callbacks.writers.pseudo_labels import PseudoLabelWriter
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import DistributionAlignment
from tailmatch.lightning_modules.pseudo_labels.flexda import FlexDA

__all__ = [
    "DARP",
    "DARPRefinement",
    "DebiasPL",
    "DistributionAlignment",
    "EarlyLearningCurves",
    "FlexDA",
    "HeadWarmup",
    "LastEvaluations",
    "LogitAdjustment",
    "PredictionWriter",
    "PseudoLabelGenerator",
    "PseudoLabelMonitor",
    "PseudoLabelWriter",
    "SelfTrainingReport",
    "UnlabeledPriorEstimator",
]
