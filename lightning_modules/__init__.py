"""Semi-supervised methods as LightningModules."""

from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.bases.semi_supervised import PseudoLabelRefiner, SemiSupervisedClassifier
from tailmatch.lightning_modules.methods.adello import ADELLO
from tailmatch.lightning_modules.methods.classifier_retraining import ClassifierRetraining
from tailmatch.lightning_modules.methods.ensemble import Ensemble
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.methods.fixmatch_retraining import FixMatchRetraining
from tailmatch.lightning_modules.methods.mixmatch import MixMatch
from tailmatch.lightning_modules.methods.moco import MoCoPretraining
from tailmatch.lightning_modules.methods.post_hoc_classifier import PostHocClassifier
from tailmatch.lightning_modules.methods.published_classifier import PublishedClassifier
from tailmatch.lightning_modules.methods.remixmatch import ReMixMatch
from tailmatch.lightning_modules.methods.rotation import RotationPretraining
from tailmatch.lightning_modules.methods.self_training import SelfTraining
from tailmatch.lightning_modules.methods.simmixmatch import SimMixMatch
from tailmatch.lightning_modules.methods.simpro import SimPro
from tailmatch.lightning_modules.methods.supervised import Supervised
from tailmatch.lightning_modules.training.quiet import quiet_known_noise

__all__ = [
    "ADELLO",
    "ClassifierRetraining",
    "Ensemble",
    "FixMatch",
    "FixMatchRetraining",
    "ImageClassifier",
    "MixMatch",
    "MoCoPretraining",
    "PostHocClassifier",
    "PseudoLabelRefiner",
    "PublishedClassifier",
    "ReMixMatch",
    "RotationPretraining",
    "SelfTraining",
    "SemiSupervisedClassifier",
    "SimMixMatch",
    "SimPro",
    "Supervised",
]

quiet_known_noise()
