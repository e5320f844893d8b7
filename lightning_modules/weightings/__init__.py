"""Weights of the pseudo-labels of `FixMatch` in the loss, in the place of a fixed threshold."""

from tailmatch.lightning_modules.weightings.base import Weighting
from tailmatch.lightning_modules.weightings.curriculum import CurriculumThresholds
from tailmatch.lightning_modules.weightings.frequency import FrequencyWeights
from tailmatch.lightning_modules.weightings.gaussian import GaussianWeights
from tailmatch.lightning_modules.weightings.head_share import HeadShareThresholds
from tailmatch.lightning_modules.weightings.relative import RelativeThreshold
from tailmatch.lightning_modules.weightings.self_adaptive import SelfAdaptiveThresholds
from tailmatch.lightning_modules.weightings.unsharpened import UnsharpenedThreshold

__all__ = [
    "CurriculumThresholds",
    "FrequencyWeights",
    "GaussianWeights",
    "HeadShareThresholds",
    "RelativeThreshold",
    "SelfAdaptiveThresholds",
    "UnsharpenedThreshold",
    "Weighting",
]
