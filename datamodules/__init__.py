"""Labeled and unlabeled image data."""

from typing import TYPE_CHECKING

from tailmatch.datamodules.process_number import number_this_process
from tailmatch.lazy import lazily

if TYPE_CHECKING:
    from tailmatch.datamodules.bases.image_data import ImageDataModule
    from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
    from tailmatch.datamodules.files.image_folder import ImageFolder
    from tailmatch.datamodules.files.image_table import ImageTable
    from tailmatch.datamodules.files.unlabeled_images import UnlabeledImages, UnlabeledTable
    from tailmatch.datamodules.in_memory import InMemory
    from tailmatch.datamodules.pseudo_labels.added import AddedLabels
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
    "AddedLabels",
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

_HOMES = {
    "CIFAR10": "tailmatch.datamodules.public.cifar",
    "CIFAR100": "tailmatch.datamodules.public.cifar",
    "AddedLabels": "tailmatch.datamodules.pseudo_labels.added",
    "DARPCounts": "tailmatch.datamodules.splitting.long_tail",
    "Digits": "tailmatch.datamodules.public.digits",
    "FashionMNIST": "tailmatch.datamodules.public.fashion_mnist",
    "ImageDataModule": "tailmatch.datamodules.bases.image_data",
    "ImageFolder": "tailmatch.datamodules.files.image_folder",
    "ImageTable": "tailmatch.datamodules.files.image_table",
    "InMemory": "tailmatch.datamodules.in_memory",
    "LabeledFraction": "tailmatch.datamodules.splitting.long_tail",
    "LabeledUnlabeledDataModule": "tailmatch.datamodules.bases.labeled_unlabeled",
    "ListedCounts": "tailmatch.datamodules.splitting.long_tail",
    "PairNoise": "tailmatch.datamodules.splitting.label_noise",
    "STL10": "tailmatch.datamodules.public.stl10",
    "SVHN": "tailmatch.datamodules.public.svhn",
    "SemiSelfCounts": "tailmatch.datamodules.splitting.long_tail",
    "SymmetricNoise": "tailmatch.datamodules.splitting.label_noise",
    "UnlabeledImages": "tailmatch.datamodules.files.unlabeled_images",
    "UnlabeledTable": "tailmatch.datamodules.files.unlabeled_images",
}

if not TYPE_CHECKING:  # for a type checker, the names above are all there are
    __getattr__, __dir__ = lazily(__name__, _HOMES)

number_this_process()
