"""Heads for a frozen backbone: trained (`CRT`, `LWS`) and computed (`TauNorm`, `NCM`)."""

from tailmatch.lightning_modules.heads.base import ComputedHead, NewHead, TrainedHead
from tailmatch.lightning_modules.heads.ncm import NCM
from tailmatch.lightning_modules.heads.tau_norm import TauNorm
from tailmatch.lightning_modules.heads.trained import CRT, LWS

__all__ = ["CRT", "LWS", "NCM", "ComputedHead", "NewHead", "TauNorm", "TrainedHead"]
