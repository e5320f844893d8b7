"""Batched augmentations that run on the device."""

from lightning_modules.views.base import View
from lightning_modules.views.blur import GaussianBlur
from lightning_modules.views.color import ColorJitter, RandomGray
from lightning_modules.views.crop import RandomResizedCrop
from lightning_modules.views.cutout import Cutout
from lightning_modules.views.randaugment import RandAugment
from lightning_modules.views.simclr import SimCLRView
from lightning_modules.views.strong import StrongView
from lightning_modules.views.weak import WeakView

__all__ = [
    "ColorJitter",
    "Cutout",
    "GaussianBlur",
    "RandAugment",
    "RandomGray",
    "RandomResizedCrop",
    "SimCLRView",
    "StrongView",
    "View",
    "WeakView",
]
