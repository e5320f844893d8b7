"""Classification losses for long tails and noisy labels, class weights, and the contrastive loss NT-Xent."""

from tailmatch.lightning_modules.losses.base import ClassificationLoss
from tailmatch.lightning_modules.losses.class_weights import (
    ClassWeights,
    DeferredReweighting,
    EffectiveNumberWeights,
    InverseWeights,
)
from tailmatch.lightning_modules.losses.cross_entropy import CrossEntropy
from tailmatch.lightning_modules.losses.focal import Focal
from tailmatch.lightning_modules.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from tailmatch.lightning_modules.losses.ldam import LDAM
from tailmatch.lightning_modules.losses.logit_adjusted import BalancedSoftmax, LogitAdjusted
from tailmatch.lightning_modules.losses.nt_xent import nt_xent
from tailmatch.lightning_modules.losses.symmetric_cross_entropy import SymmetricCrossEntropy

__all__ = [
    "LDAM",
    "BalancedSoftmax",
    "ClassWeights",
    "ClassificationLoss",
    "CrossEntropy",
    "DeferredReweighting",
    "EffectiveNumberWeights",
    "Focal",
    "GeneralizedCrossEntropy",
    "InverseWeights",
    "LogitAdjusted",
    "SymmetricCrossEntropy",
    "nt_xent",
]
