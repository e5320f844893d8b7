"""Weighted sums of rows and columns, separate for each sample: the arithmetic of resizing and blurring."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules.views.base import all_to_device, in_parts

MOST_BITS = 16  # 255 times a sum of weights of 1 stays below 2**24, up to which float32 holds all whole numbers


class Taps(NamedTuple):
    """The positions and weights that each output position along one axis sums up, for each sample.

    `position` holds K input positions for each of N output positions, `int32 [B, N, K]`; `weight` their weights,
    `float32 [B, N, K]` from `fixed_point`.
    """

    position: Tensor
    weight: Tensor


def fixed_point(weight: Tensor) -> Tensor:
    """Round the weights of each sample to multiples of a power of two, so that sums of pixels are exact.

    The rule is that of torch's resizing of `uint8` images (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`): as many bits
    as keep the largest weight of the sample below 2**15, here at most 16.

    Args:
        weight: Weights `float64 [B, N, K]`, not negative, with a sum of 1 over K.

    Returns:
        Rounded weights `float32 [B, N, K]`.
    """
    largest = weight.amax((1, 2), keepdim=True)
    bits = torch.floor(torch.log2((2**15 - 0.5) / largest)).clamp_(max=MOST_BITS)
    return torch.floor(weight * 2**bits + 0.5).div_(2**bits).to(torch.float32)


def resample(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Sum up columns, then rows, rounding to `uint8` after each, as Pillow and torch do for `uint8` images.

    All sums are exact, so every device gives the same pixels.

    Args:
        images: Images `uint8 [B, C, H, W]`.
        rows: Taps for H' rows of the output.
        columns: Taps for W' columns of the output.

    Returns:
        Images `uint8 [B, C, H', W']`.
    """
    return in_parts(_resample, images, *all_to_device([*rows, *columns], images.device))


def _resample(images: Tensor, *taps: Tensor) -> Tensor:
    """Resample some samples; `taps` are position and weight of rows, then of columns."""
    across = _sum_up(images.permute(0, 3, 1, 2), Taps(*taps[2:]))  # [B, W', C, H]
    down = _sum_up(across.permute(0, 3, 2, 1), Taps(*taps[:2]))  # [B, H', C, W']
    return down.permute(0, 2, 1, 3)


def _sum_up(images: Tensor, taps: Taps) -> Tensor:
    """Sum up the second dimension with weights: `uint8 [B, M, C, S]` to `[B, N, C, S]`."""
    batch, length, channels, side = images.shape
    table = images.contiguous().to(torch.float32).view(batch * length, channels * side)
    first = torch.arange(0, batch * length, length, dtype=torch.int32, device=images.device)[:, None, None]
    position, weight = (taps.position + first).flatten(0, 1), taps.weight.flatten(0, 1)
    sums = functional.embedding_bag(position, table, mode="sum", per_sample_weights=weight)
    return sums.add_(0.5).clamp_(max=255).to(torch.uint8).view(batch, taps.position.shape[1], channels, side)
