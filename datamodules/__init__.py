"""Labeled and unlabeled image data."""

from datamodules.cifar import CIFAR10
from datamodules.digits import Digits
from datamodules.image_folder import ImageFolder
from datamodules.image_table import ImageTable
from datamodules.labeled_unlabeled import LabeledUnlabeledDataModule
from datamodules.long_tail import DARPCounts, LabeledFraction, ListedCounts, SemiSelfCounts

__all__ = [
    "CIFAR10",
    "DARPCounts",
    "Digits",
    "ImageFolder",
    "ImageTable",
    "LabeledFraction",
    "LabeledUnlabeledDataModule",
    "ListedCounts",
    "SemiSelfCounts",
]
