"""Labeled and unlabeled image data."""

from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.digits import Digits
from datamodules.fashion_mnist import FashionMNIST
from datamodules.image_data import ImageDataModule
from datamodules.image_folder import ImageFolder
from datamodules.image_table import ImageTable
from datamodules.label_noise import PairNoise, SymmetricNoise
from datamodules.labeled_unlabeled import LabeledUnlabeledDataModule
from datamodules.long_tail import DARPCounts, LabeledFraction, ListedCounts, SemiSelfCounts
from datamodules.stl10 import STL10
from datamodules.svhn import SVHN
from datamodules.unlabeled_images import UnlabeledImages, UnlabeledTable

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DARPCounts",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ImageTable",
    "LabeledFraction",
    "LabeledUnlabeledDataModule",
    "ListedCounts",
    "PairNoise",
    "STL10",
    "SVHN",
    "SemiSelfCounts",
    "SymmetricNoise",
    "UnlabeledImages",
    "UnlabeledTable",
]
