"""Heads for a frozen backbone: trained (`CRT`, `LWS`) and computed (`TauNorm`, `NCM`)."""

from lightning_modules.heads.base import ComputedHead, NewHead, TrainedHead
from lightning_modules.heads.ncm import NCM
from lightning_modules.heads.tau_norm import TauNorm
from lightning_modules.heads.trained import CRT, LWS

__all__ = ["CRT", "LWS", "NCM", "ComputedHead", "NewHead", "TauNorm", "TrainedHead"]
