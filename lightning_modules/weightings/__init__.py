"""Weights of the pseudo-labels of `FixMatch` in the loss, in the place of a fixed threshold."""

from tailmatch.lightning_modules.weightings.base import Weighting
from tailmatch.lightning_modules.weightings.curriculum import CurriculumThresholds

__all__ = ["CurriculumThresholds", "Weighting"]
