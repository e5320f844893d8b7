"""The weak view: flip and shift."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_below_one
from tailmatch.lightning_modules.views.base import FlippingView, all_to_device
from tailmatch.lightning_modules.views.ops import take_pixels


class WeakView(FlippingView):
    """A flip of half of the images and a random shift of each, with mirroring at the border.

    FixMatch (arXiv 2001.07685), section 2.3: shifts of up to 12.5 % of the size, vertically and horizontally; no flip
    for SVHN, where it changes the class. The authors' `libml/augment.py` pads by reflection and crops too.

    Args:
        translate: Largest shift as a share of height and of width, in [0, 1); rounded down to whole pixels.
        flip: Whether half of the images are flipped left to right. None flips unless the data set says that mirroring
            changes the label, as for digits.

    Raises:
        SettingsError: `translate` lies outside [0, 1).
    """

    def __init__(self, translate: float = 0.125, flip: bool | None = None) -> None:
        super().__init__(flip)
        check_below_one("translate", translate)
        self.translate = translate

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape."""
        return flip_and_shift(images, *self.draw(len(images), *images.shape[2:]).unbind())

    def draw(self, batch_size: int, height: int, width: int) -> Tensor:
        """Draw on the host, for each sample: flip (0 or 1), pixels down, pixels right. `int64 [3, B]`."""
        down, right = int(self.translate * height), int(self.translate * width)
        flip = torch.randint(2, (batch_size,), device="cpu") * self.horizontal_flip
        shift_down = torch.randint(-down, down + 1, (batch_size,), device="cpu")
        shift_right = torch.randint(-right, right + 1, (batch_size,), device="cpu")
        return torch.stack([flip, shift_down, shift_right])


def flip_and_shift(images: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Flip images left to right, then shift them; the border is filled by mirroring at its pixels.

    Args:
        images: Images `uint8 [B, C, H, W]`.
        flip: Whether to flip each, `int64 [B]`, 0 or 1, on the host.
        down: Pixels to move down, `int64 [B]`, less than the height either way, on the host.
        right: Pixels to move right, `int64 [B]`, less than the width either way, on the host.
    """
    height, width = images.shape[2:]
    row = reflect(torch.arange(height, device="cpu") - down[:, None], height)
    column = reflect(torch.arange(width, device="cpu") - right[:, None], width)
    column = torch.where(flip[:, None] == 1, width - 1 - column, column)
    row, column = all_to_device([row * width, column], images.device)
    index = row[:, :, None] + column[:, None, :]
    return take_pixels(images, index.flatten(1)[:, None])


def reflect(position: Tensor, length: int) -> Tensor:
    """Mirror positions outside 0..length - 1 at the first and the last one, without repeating them."""
    return length - 1 - (length - 1 - position.abs()).abs()
