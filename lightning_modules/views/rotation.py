"""Quarter turns of square images."""

import torch
from torch import Tensor


def rotate_quarters(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each image counter-clockwise by its own number of quarter turns, as `torch.rot90(image, k, (1, 2))`.

    Pixels move and never change. A turn is a transposition (odd turns) and flips, so the whole batch goes through three
    selections without a loop, and nothing waits for the device.

    Args:
        images: Images `[B, C, H, W]` of any type, H = W.
        turns: Numbers of quarter turns `int64 [B]`, on the images' device; taken modulo 4.

    Raises:
        ValueError: The images are not square: a quarter turn would change their shape.
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images are {list(images.shape)}; they must be square to be turned, [B, C, H, H]")
    turns = turns.remainder(4)[:, None, None, None]
    turned = torch.where(turns % 2 == 1, images.transpose(2, 3), images)
    turned = torch.where((turns == 1) | (turns == 2), turned.flip(2), turned)
    return torch.where(turns >= 2, turned.flip(3), turned)
