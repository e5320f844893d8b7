"""Semi-supervised methods as LightningModules."""

from typing import TYPE_CHECKING

from tailmatch.lazy import lazily
from tailmatch.lightning_modules.training.quiet import quiet_known_noise

if TYPE_CHECKING:
    from tailmatch.lightning_modules import heads as heads
    from tailmatch.lightning_modules import losses as losses
    from tailmatch.lightning_modules import networks as networks
    from tailmatch.lightning_modules import training as training
    from tailmatch.lightning_modules import views as views
    from tailmatch.lightning_modules import weightings as weightings
    from tailmatch.lightning_modules.bases.classifier import ImageClassifier
    from tailmatch.lightning_modules.bases.semi_supervised import PseudoLabelRefiner, SemiSupervisedClassifier
    from tailmatch.lightning_modules.methods.acr import ACR
    from tailmatch.lightning_modules.methods.adamatch import AdaMatch
    from tailmatch.lightning_modules.methods.adello import ADELLO
    from tailmatch.lightning_modules.methods.auxiliary_balanced import FixMatchABC, ReMixMatchABC
    from tailmatch.lightning_modules.methods.bacon import BaCon
    from tailmatch.lightning_modules.methods.boat import BOAT
    from tailmatch.lightning_modules.methods.ccl import CCL
    from tailmatch.lightning_modules.methods.classifier_retraining import ClassifierRetraining
    from tailmatch.lightning_modules.methods.cossl import CoSSL
    from tailmatch.lightning_modules.methods.cpe import CPE
    from tailmatch.lightning_modules.methods.cpg import CPG
    from tailmatch.lightning_modules.methods.daso import DASO
    from tailmatch.lightning_modules.methods.dytrim import DyTrim
    from tailmatch.lightning_modules.methods.elr import ELR
    from tailmatch.lightning_modules.methods.ensemble import Ensemble
    from tailmatch.lightning_modules.methods.fixmatch import FixMatch
    from tailmatch.lightning_modules.methods.fixmatch_retraining import FixMatchRetraining
    from tailmatch.lightning_modules.methods.freematch import FreeMatch
    from tailmatch.lightning_modules.methods.mean_teacher import MeanTeacher
    from tailmatch.lightning_modules.methods.meta_expert import MetaExpert
    from tailmatch.lightning_modules.methods.mixmatch import MixMatch
    from tailmatch.lightning_modules.methods.moco import MoCoPretraining
    from tailmatch.lightning_modules.methods.post_hoc_classifier import PostHocClassifier
    from tailmatch.lightning_modules.methods.published_classifier import PublishedClassifier
    from tailmatch.lightning_modules.methods.remix import Remix
    from tailmatch.lightning_modules.methods.remixmatch import ReMixMatch
    from tailmatch.lightning_modules.methods.rotation import RotationPretraining
    from tailmatch.lightning_modules.methods.saw import SAW
    from tailmatch.lightning_modules.methods.scssl import SCSSL
    from tailmatch.lightning_modules.methods.self_training import SelfTraining
    from tailmatch.lightning_modules.methods.simis import SimiS
    from tailmatch.lightning_modules.methods.simmatch import SimMatch
    from tailmatch.lightning_modules.methods.simmixmatch import SimMixMatch
    from tailmatch.lightning_modules.methods.simpro import SimPro
    from tailmatch.lightning_modules.methods.supervised import Supervised
    from tailmatch.lightning_modules.methods.uda import UDA

__all__ = [
    "ACR",
    "ADELLO",
    "BOAT",
    "CCL",
    "CPE",
    "ELR",
    "DASO",
    "CPG",
    "SAW",
    "SCSSL",
    "UDA",
    "AdaMatch",
    "BaCon",
    "ClassifierRetraining",
    "DyTrim",
    "CoSSL",
    "Ensemble",
    "FixMatch",
    "FixMatchABC",
    "FixMatchRetraining",
    "FreeMatch",
    "ImageClassifier",
    "MetaExpert",
    "MeanTeacher",
    "MixMatch",
    "MoCoPretraining",
    "PostHocClassifier",
    "PseudoLabelRefiner",
    "PublishedClassifier",
    "ReMixMatch",
    "ReMixMatchABC",
    "Remix",
    "RotationPretraining",
    "SelfTraining",
    "SemiSupervisedClassifier",
    "SimMatch",
    "SimMixMatch",
    "SimPro",
    "SimiS",
    "Supervised",
]

_HOMES = {
    "ACR": "tailmatch.lightning_modules.methods.acr",
    "ADELLO": "tailmatch.lightning_modules.methods.adello",
    "BOAT": "tailmatch.lightning_modules.methods.boat",
    "CCL": "tailmatch.lightning_modules.methods.ccl",
    "CPE": "tailmatch.lightning_modules.methods.cpe",
    "ELR": "tailmatch.lightning_modules.methods.elr",
    "DASO": "tailmatch.lightning_modules.methods.daso",
    "CPG": "tailmatch.lightning_modules.methods.cpg",
    "SAW": "tailmatch.lightning_modules.methods.saw",
    "SCSSL": "tailmatch.lightning_modules.methods.scssl",
    "UDA": "tailmatch.lightning_modules.methods.uda",
    "AdaMatch": "tailmatch.lightning_modules.methods.adamatch",
    "BaCon": "tailmatch.lightning_modules.methods.bacon",
    "ClassifierRetraining": "tailmatch.lightning_modules.methods.classifier_retraining",
    "DyTrim": "tailmatch.lightning_modules.methods.dytrim",
    "CoSSL": "tailmatch.lightning_modules.methods.cossl",
    "Ensemble": "tailmatch.lightning_modules.methods.ensemble",
    "FixMatch": "tailmatch.lightning_modules.methods.fixmatch",
    "FixMatchABC": "tailmatch.lightning_modules.methods.auxiliary_balanced",
    "FixMatchRetraining": "tailmatch.lightning_modules.methods.fixmatch_retraining",
    "FreeMatch": "tailmatch.lightning_modules.methods.freematch",
    "ImageClassifier": "tailmatch.lightning_modules.bases.classifier",
    "MetaExpert": "tailmatch.lightning_modules.methods.meta_expert",
    "MeanTeacher": "tailmatch.lightning_modules.methods.mean_teacher",
    "MixMatch": "tailmatch.lightning_modules.methods.mixmatch",
    "MoCoPretraining": "tailmatch.lightning_modules.methods.moco",
    "PostHocClassifier": "tailmatch.lightning_modules.methods.post_hoc_classifier",
    "PseudoLabelRefiner": "tailmatch.lightning_modules.bases.semi_supervised",
    "PublishedClassifier": "tailmatch.lightning_modules.methods.published_classifier",
    "ReMixMatch": "tailmatch.lightning_modules.methods.remixmatch",
    "ReMixMatchABC": "tailmatch.lightning_modules.methods.auxiliary_balanced",
    "Remix": "tailmatch.lightning_modules.methods.remix",
    "RotationPretraining": "tailmatch.lightning_modules.methods.rotation",
    "SelfTraining": "tailmatch.lightning_modules.methods.self_training",
    "SemiSupervisedClassifier": "tailmatch.lightning_modules.bases.semi_supervised",
    "SimMatch": "tailmatch.lightning_modules.methods.simmatch",
    "SimMixMatch": "tailmatch.lightning_modules.methods.simmixmatch",
    "SimPro": "tailmatch.lightning_modules.methods.simpro",
    "SimiS": "tailmatch.lightning_modules.methods.simis",
    "Supervised": "tailmatch.lightning_modules.methods.supervised",
}

if not TYPE_CHECKING:  # for a type checker, the names above are all there are
    __getattr__, __dir__ = lazily(__name__, _HOMES, ("heads", "losses", "networks", "training", "views", "weightings"))

quiet_known_noise()
