"""Semi-supervised methods as LightningModules."""

from lightning_modules.classifier import ImageClassifier
from lightning_modules.crt import ClassifierRetraining
from lightning_modules.ensemble import Ensemble
from lightning_modules.fixmatch import FixMatch
from lightning_modules.mixmatch import MixMatch
from lightning_modules.moco import MoCoPretraining
from lightning_modules.post_hoc import PostHocClassifier
from lightning_modules.remixmatch import ReMixMatch
from lightning_modules.rotation import RotationPretraining
from lightning_modules.self_training import SelfTraining
from lightning_modules.semi_supervised import PseudoLabelRefiner, SemiSupervisedClassifier
from lightning_modules.simmixmatch import SimMixMatch
from lightning_modules.supervised import Supervised

__all__ = [
    "ClassifierRetraining",
    "Ensemble",
    "FixMatch",
    "ImageClassifier",
    "MixMatch",
    "MoCoPretraining",
    "PostHocClassifier",
    "PseudoLabelRefiner",
    "ReMixMatch",
    "RotationPretraining",
    "SelfTraining",
    "SemiSupervisedClassifier",
    "SimMixMatch",
    "Supervised",
]
