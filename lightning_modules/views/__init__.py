"""Batched augmentations that run on the device."""

from lightning_modules.views.base import View
from lightning_modules.views.cutout import Cutout
from lightning_modules.views.randaugment import RandAugment
from lightning_modules.views.strong import StrongView
from lightning_modules.views.weak import WeakView

__all__ = ["Cutout", "RandAugment", "StrongView", "View", "WeakView"]
