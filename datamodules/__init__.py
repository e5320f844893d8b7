"""Labeled and unlabeled image data."""

from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.files.image_folder import ImageFolder
from tailmatch.datamodules.files.image_table import ImageTable
from tailmatch.datamodules.files.unlabeled_images import UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.in_memory import InMemory
from tailmatch.datamodules.public.cifar import CIFAR10, CIFAR100
from tailmatch.datamodules.public.digits import Digits
from tailmatch.datamodules.public.fashion_mnist import FashionMNIST
from tailmatch.datamodules.public.stl10 import STL10
from tailmatch.datamodules.public.svhn import SVHN
from tailmatch.datamodules.splitting.label_noise import PairNoise, SymmetricNoise
from tailmatch.datamodules.splitting.long_tail import DARPCounts, LabeledFraction, ListedCounts, SemiSelfCounts

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DARPCounts",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ImageTable",
    "InMemory",
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
