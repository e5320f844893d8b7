"""Class-imbalance remedies, reports and checkpoints as callbacks."""

from typing import TYPE_CHECKING

from tailmatch.lazy import lazily

if TYPE_CHECKING:
    from tailmatch.callbacks.compiled_backbone import CompiledBackbone
    from tailmatch.callbacks.remedies.cdmad import CDMAD
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
    "CDMAD",
    "CompiledBackbone",
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

_HOMES = {
    "CDMAD": "tailmatch.callbacks.remedies.cdmad",
    "CompiledBackbone": "tailmatch.callbacks.compiled_backbone",
    "DARP": "tailmatch.callbacks.remedies.darp.callback",
    "DARPRefinement": "tailmatch.callbacks.remedies.darp.callback",
    "DebiasPL": "tailmatch.callbacks.remedies.debiaspl",
    "DistributionAlignment": "tailmatch.lightning_modules.pseudo_labels.distribution_alignment",
    "EarlyLearningCurves": "tailmatch.callbacks.reports.early_learning",
    "FlexDA": "tailmatch.lightning_modules.pseudo_labels.flexda",
    "HeadWarmup": "tailmatch.callbacks.remedies.head_warmup",
    "LastEvaluations": "tailmatch.callbacks.reports.last_evaluations",
    "LogitAdjustment": "tailmatch.callbacks.remedies.logit_adjustment",
    "PredictionWriter": "tailmatch.callbacks.writers.predictions",
    "PseudoLabelGenerator": "tailmatch.callbacks.remedies.pseudo_label_generator",
    "PseudoLabelMonitor": "tailmatch.callbacks.reports.pseudo_label_monitor",
    "PseudoLabelWriter": "tailmatch.callbacks.writers.pseudo_labels",
    "SelfTrainingReport": "tailmatch.callbacks.reports.self_training",
    "UnlabeledPriorEstimator": "tailmatch.callbacks.remedies.unlabeled_prior",
}

if not TYPE_CHECKING:  # for a type checker, the names above are all there are
    __getattr__, __dir__ = lazily(__name__, _HOMES)
