"""Batched augmentations that run on the device."""

from tailmatch.lightning_modules.views.base import View
from tailmatch.lightning_modules.views.blur import GaussianBlur
from tailmatch.lightning_modules.views.color import ColorJitter, RandomGray
from tailmatch.lightning_modules.views.crop import RandomResizedCrop
from tailmatch.lightning_modules.views.cutout import Cutout
from tailmatch.lightning_modules.views.randaugment import RandAugment
from tailmatch.lightning_modules.views.simclr import SimCLRView
from tailmatch.lightning_modules.views.strong import StrongView
from tailmatch.lightning_modules.views.weak import WeakView

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
