"""Cutout: a gray square at a random place."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_share
from tailmatch.lightning_modules.views.base import View, all_to_device

GRAY = 127  # the authors' libml/ctaugment.py fills with (127, 127, 127)


class Cutout(View):
    """A gray square in each image, centered on a random pixel and clipped at the border.

    As in the code of FixMatch's authors (`libml/ctaugment.py`, `cutout`): `size` rows and columns from
    `center - size // 2` on, fewer where the border cuts them. PyTorch ports move the square inside at the top and the
    left instead of clipping it, and cover `size + 1` rows and columns.

    Args:
        fraction: Side of the square as a share of the shorter side of the image, in [0, 1]; rounded down to whole
            pixels.

    Raises:
        SettingsError: `fraction` lies outside [0, 1].
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__()
        check_share("fraction", fraction)
        self.fraction = fraction

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape."""
        batch, _, height, width = images.shape
        center = torch.stack([torch.randint(side, (batch,), device="cpu") for side in (height, width)], 1)
        return cut_out(images, center, int(self.fraction * min(height, width)))


def cut_out(images: Tensor, center: Tensor, size: int) -> Tensor:
    """Cover a square of `size` pixels in each image with gray.

    Args:
        images: Images `uint8 [B, C, H, W]`.
        center: Row and column of the center, `int64 [B, 2]`, on the host.
        size: Side of the square in pixels.
    """
    top, left = (center - size // 2).unbind(1)
    sides = [_between(top, size, images.shape[2]), _between(left, size, images.shape[3])]
    rows, columns = all_to_device(sides, images.device)
    covered = rows[:, None, :, None] * columns[:, None, None, :]
    return (images * (1 - covered)).add_(covered * GRAY)  # much faster on a CPU than masked_fill


def _between(start: Tensor, size: int, length: int) -> Tensor:
    """Return 1 where `start <= position < start + size`, else 0: `uint8 [B, length]`."""
    position = torch.arange(length, device="cpu")
    return ((position >= start[:, None]) & (position < start[:, None] + size)).to(torch.uint8)
