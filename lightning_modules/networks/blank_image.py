"""Images without content, and what a network prefers where there is nothing to see (CDMAD, arXiv 2403.10391)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_choice
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.network import Network

BlankColor = Literal["light", "mean", "black", "white"]
"""The color of an image without content, the same for every pixel; in [0, 1], for a network's channel means and stds:

* `light`: mean + std of each channel, 1 after normalization; LeeHyuck/CDMAD, which calls it white. On CIFAR-10, it is a
  light gray, about (0.74, 0.73, 0.71). It may exceed 1.
* `mean`: mean of each channel, 0 after normalization; Jiajun0425/DyTrim, which calls it black.
* `black`: 0 in each channel.
* `white`: 1 in each channel.
"""

COLORS: tuple[str, ...] = get_args(BlankColor)


def blank_image(network: Network, color: str, image_size: Sequence[int]) -> Tensor:
    """Make an image without content, `[1, 3, H, W]` in the scale of a network's input.

    Args:
        network: Network whose channel means and stds the color may depend on.
        color: See `BlankColor`.
        image_size: Height and width in pixels.

    Raises:
        SettingsError: The color is none of `BlankColor`.
    """
    check_choice("color", color, COLORS)
    colors = {
        "light": network.mean + network.std,
        "mean": network.mean,
        "black": torch.zeros_like(network.mean),
        "white": torch.ones_like(network.mean),
    }
    return colors[color].expand(1, 3, *image_size)


@torch.no_grad()
def blank_logits(network: Network, color: str, image_size: Sequence[int]) -> Tensor:
    """Compute the logits `float32 [K]` of an image without content and without categories.

    The network computes in evaluation mode, so that BatchNorm normalizes the image by its running statistics and does
    not change them. The authors pass the image alone in training mode: its own statistics normalize it then, and the
    running ones take a share of them.

    Args:
        network: Network of any mode.
        color: See `BlankColor`.
        image_size: Height and width in pixels.
    """
    with evaluation_mode(network):
        image = network.with_categories(blank_image(network, color, image_size), None)
        logits: Tensor = network(image)[0].float()
    return logits


class DebiasedHead(nn.Module):
    """A head whose logits are those of another, minus those of an image without content.

    Args:
        head: The head.
        bias: Logits `[K]` of the image.
    """

    bias: Tensor

    def __init__(self, head: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, D]` to logits `[B, K]`."""
        logits: Tensor = self.head(features) - self.bias
        return logits


def debias_head(network: Network, color: str | None, image_size: Sequence[int] | None, path: str) -> None:
    """Subtract the logits of an image without content in a trained network itself, which will not be trained further.

    Args:
        network: Network whose head is replaced.
        color: See `BlankColor`; None changes nothing.
        image_size: Height and width in pixels of the images that it is evaluated on.
        path: Name of the checkpoint or the method, for a message.

    Raises:
        SettingsError: The size is not known.
    """
    if color is None:
        return
    if image_size is None:
        raise SettingsError(f"{path} is debiased by an image without content, and does not say the size of its images")
    network.head = DebiasedHead(network.head, blank_logits(network, color, image_size))
