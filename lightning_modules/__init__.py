"""Semi-supervised methods as LightningModules."""

from lightning_modules.classifier import ImageClassifier
from lightning_modules.fixmatch import FixMatch
from lightning_modules.self_training import SelfTraining
from lightning_modules.semi_supervised import PseudoLabelRefiner, SemiSupervisedClassifier
from lightning_modules.supervised import Supervised

__all__ = [
    "FixMatch",
    "ImageClassifier",
    "PseudoLabelRefiner",
    "SelfTraining",
    "SemiSupervisedClassifier",
    "Supervised",
]
