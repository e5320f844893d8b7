"""Cutout: a gray square over a random place."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_share
from tailmatch.lightning_modules.views.base import View, to_device

GRAY = 127  # the authors' libml/ctaugment.py fills with (127, 127, 127)


class Cutout(View):
    """Covers a square, centered on a random pixel and clipped at the border, with gray.

    As in the code of FixMatch's authors (``libml/ctaugment.py``, ``cutout``): ``size`` rows and columns from
    ``center - size // 2`` on, less where the border cuts them. PyTorch ports move the square inside at the
    top and the left instead of clipping it, and cover ``size + 1`` rows and columns.

    Args:
        fraction: side of the square over the shorter side of the image, rounded down to whole pixels.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__()
        check_share("fraction", fraction)
        self.fraction = fraction

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images of the same shape."""
        batch, _, height, width = images.shape
        center = torch.stack([torch.randint(side, (batch,), device="cpu") for side in (height, width)], 1)
        return cut_out(images, to_device(center, images.device), int(self.fraction * min(height, width)))


def cut_out(images: Tensor, center: Tensor, size: int) -> Tensor:
    """Covers with gray, in each image, a square of ``size`` pixels.

    Args:
        images: uint8 ``[B, C, H, W]``.
        center: int64 ``[B, 2]``, row and column, on the images' device.
        size: side of the square, in pixels.
    """
    top, left = (center - size // 2).unbind(1)
    rows = _between(top, size, images.shape[2])[:, None, :, None]
    columns = _between(left, size, images.shape[3])[:, None, None, :]
    covered = rows * columns
    return (images * (1 - covered)).add_(covered * GRAY)  # much faster on a CPU than masked_fill


def _between(start: Tensor, size: int, length: int) -> Tensor:
    """One where ``start <= position < start + size``, else zero. Uint8 ``[B, length]``."""
    position = torch.arange(length, device=start.device)
    return ((position >= start[:, None]) & (position < start[:, None] + size)).to(torch.uint8)
