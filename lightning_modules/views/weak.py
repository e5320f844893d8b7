"""The weak view: flip and shift."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_below_one
from tailmatch.lightning_modules.views.base import FlippingView, to_device
from tailmatch.lightning_modules.views.ops import take_pixels


class WeakView(FlippingView):
    """Flips half of the images left to right and moves each by some pixels, mirroring at the border.

    FixMatch (arXiv:2001.07685), section 2.3: up to 12.5 % of the size, vertically and horizontally; no flip
    for SVHN, where it changes the class. The authors' ``libml/augment.py`` pads by reflection and crops too.

    Args:
        translate: largest shift as a fraction of the height and of the width, rounded down to whole pixels.
        flip: whether to flip; ``None`` does as the data set says through :meth:`adapt`, and flips till then.
    """

    def __init__(self, translate: float = 0.125, flip: bool | None = None) -> None:
        super().__init__(flip)
        check_below_one("translate", translate)
        self.translate = translate

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images of the same shape."""
        parameters = to_device(self.draw(len(images), *images.shape[2:]), images.device)
        return flip_and_shift(images, *parameters.unbind())

    def draw(self, batch_size: int, height: int, width: int) -> Tensor:
        """Draws on the host, for each sample: flip (0 or 1), pixels down, pixels right. Int64 ``[3, B]``."""
        down, right = int(self.translate * height), int(self.translate * width)
        flip = torch.randint(2, (batch_size,), device="cpu") * self.horizontal_flip
        shift_down = torch.randint(-down, down + 1, (batch_size,), device="cpu")
        shift_right = torch.randint(-right, right + 1, (batch_size,), device="cpu")
        return torch.stack([flip, shift_down, shift_right])


def flip_and_shift(images: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Flips images left to right, then moves them; what comes in is mirrored at the border pixel.

    Args:
        images: uint8 ``[B, C, H, W]``.
        flip: int64 ``[B]``, 1 to flip.
        down: int64 ``[B]``, pixels to move down, less than the height either way.
        right: int64 ``[B]``, pixels to move right, less than the width either way.
    """
    height, width = images.shape[2:]
    row = reflect(torch.arange(height, device=images.device) - down[:, None], height)
    column = reflect(torch.arange(width, device=images.device) - right[:, None], width)
    column = torch.where(flip[:, None] == 1, width - 1 - column, column)
    index = (row * width)[:, :, None] + column[:, None, :]
    return take_pixels(images, index.flatten(1)[:, None])


def reflect(position: Tensor, length: int) -> Tensor:
    """Mirrors positions outside 0..length - 1 at the first and the last one, without repeating them."""
    return length - 1 - (length - 1 - position.abs()).abs()
