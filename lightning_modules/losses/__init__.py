"""Losses as pure functions of tensors and small modules."""

from lightning_modules.losses.nt_xent import nt_xent

__all__ = ["nt_xent"]
