"""What every view shares: uint8 images in, float images in [0, 1] out, parameters drawn on the host."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.checkpoints.description import Described

PART = 2**21  # values that a CPU works on at once; more cost it more in page faults than in arithmetic


class View(Described, nn.Module):
    """A random augmentation of a batch, with its own parameters for each sample.

    A subclass writes :meth:`augment`, from uint8 to uint8, so that views chain on integers; calling a view
    divides by 255 once, at the end. All parameters come from torch's CPU generator, wherever the images are:
    a seed gives the same views on every device, and nothing waits for the device.
    """

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images; the input stays.

        The shape stays too, unless the view has a size of its own.
        """
        raise NotImplementedError

    def adapt(self, horizontal_flip: bool) -> None:
        """Takes over what the data set says about its images; a view that does not depend on it ignores it.

        Args:
            horizontal_flip: whether a mirrored image keeps its label (false for digits).
        """

    def forward(self, images: Tensor) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 ``[B, 3, H, W]``.

        Returns:
            float32 ``[B, 3, H, W]`` in [0, 1], or of the height and width that the view makes.

        Raises:
            ValueError: if the images have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            got = f"{images.dtype} of shape {list(images.shape)}"
            raise ValueError(f"images must be torch.uint8 of shape [B, 3, H, W], got {got}")
        return self.augment(images).to(torch.float32).div_(255)


class FlippingView(View):
    """A view that flips half of the images left to right, where a mirrored image keeps its label.

    Args:
        flip: whether to flip; ``None`` does as the data set says through :meth:`adapt`, and flips till then.
    """

    def __init__(self, flip: bool | None) -> None:
        super().__init__()
        self.flip = flip
        self.horizontal_flip = True if flip is None else flip

    def adapt(self, horizontal_flip: bool) -> None:
        """Flips as the data set says, unless ``flip`` was given."""
        if self.flip is None:
            self.horizontal_flip = horizontal_flip


def to_device(parameters: Tensor, device: torch.device) -> Tensor:
    """Moves parameters drawn on the host without making the host wait (through pinned memory to CUDA)."""
    if device.type == "cuda":
        parameters = parameters.pin_memory()
    return parameters.to(device, non_blocking=True)


def apply_where(chosen: Tensor, function: Callable[[Tensor, Tensor], Tensor], images: Tensor) -> Tensor:
    """Applies a function to some of the images, of which the others stay as they are.

    Args:
        chosen: bool ``[B]``, on the host.
        function: gets the chosen images, uint8 ``[n, C, H, W]``, and their positions, int64 ``[n]``, on the host;
            gives images of the same shape. It isn't called for none.
        images: uint8 ``[B, C, H, W]``.
    """
    position = chosen.nonzero().flatten()
    if len(position) == 0:
        return images
    there = to_device(position, images.device)
    return images.index_copy(0, there, function(images.index_select(0, there), position))


def in_parts(function: Callable[..., Tensor], images: Tensor, *parameters: Tensor) -> Tensor:
    """Applies a function that makes float copies, on a CPU to a few samples at a time, which is faster there.

    Args:
        function: of the images and the parameters of some samples; gives their new images.
        images: uint8 ``[B, C, H, W]``.
        parameters: ``[B, ...]``, anywhere.
    """
    if images.device.type != "cpu":
        return function(images, *parameters)
    samples = max(1, PART // max(1, images[:1].numel()))
    parts = zip(*(torch.split(tensor, samples) for tensor in (images, *parameters)), strict=True)
    return torch.cat([function(*part) for part in parts])
