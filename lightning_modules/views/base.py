"""The base of all views: `uint8` images in, float images in [0, 1] out, parameters drawn on the host."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.checkpoints.description import Described

PART = 2**21  # values that a CPU processes at once; more would cost more in page faults than in arithmetic

ALIGNMENT = 8  # bytes, of the largest type of parameters


class View(Described, nn.Module):
    """A random augmentation of a batch, with separate parameters for each sample.

    A subclass implements `augment`, from `uint8` to `uint8`, so that views chain on integers; calling a view divides by
    255 once, at the end. All parameters come from torch's CPU generator, on whatever device the images are: a seed
    gives the same views on every device, and nothing waits for the device.
    """

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images, without changing the input.

        The shape stays the same, unless the view has a size of its own.
        """
        raise NotImplementedError

    def adapt(self, horizontal_flip: bool) -> None:
        """Take over what the data set says about its images; the default ignores it.

        Args:
            horizontal_flip: Whether a mirrored image keeps its label (False for digits).
        """

    def forward(self, images: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: Images `uint8 [B, 3, H, W]`.

        Returns:
            Images `float32 [B, 3, H, W]` in [0, 1], or of the view's own height and width.

        Raises:
            ValueError: The images have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            got = f"{images.dtype} of shape {list(images.shape)}"
            raise ValueError(f"images are {got}; they must be torch.uint8 [B, 3, H, W]")
        return self.augment(images).to(torch.float32).div_(255)


class FlippingView(View):
    """A view that flips half of the images left to right, where a mirrored image keeps its label.

    Args:
        flip: Whether half of the images are flipped left to right. None flips unless the data set says that mirroring
            changes the label, as for digits. (`adapt` passes on what the data set says.)
    """

    def __init__(self, flip: bool | None) -> None:
        super().__init__()
        self.flip = flip
        self.horizontal_flip = True if flip is None else flip

    def adapt(self, horizontal_flip: bool) -> None:
        """Flip as the data set says, unless `flip` was given."""
        if self.flip is None:
            self.horizontal_flip = horizontal_flip


def to_device(parameters: Tensor, device: torch.device) -> Tensor:
    """Move parameters drawn on the host to a device without waiting (through pinned memory to CUDA)."""
    if device.type == "cuda":
        parameters = parameters.pin_memory()
    return parameters.to(device, non_blocking=True)


def all_to_device(parameters: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Move several parameters that were drawn on the host in one copy; see `to_device`."""
    if device.type == "cpu":
        return list(parameters)
    sizes = [-(-parameter.numel() * parameter.element_size() // ALIGNMENT) * ALIGNMENT for parameter in parameters]
    packed = torch.empty(sum(sizes), dtype=torch.uint8, device="cpu")
    for part, parameter in zip(torch.split(packed, sizes), parameters, strict=True):
        _as_like(part, parameter).copy_(parameter)
    there = torch.split(to_device(packed, device), sizes)
    return [_as_like(part, parameter) for part, parameter in zip(there, parameters, strict=True)]


def _as_like(memory: Tensor, parameter: Tensor) -> Tensor:
    """View the first of some bytes, `uint8 [N]`, as a tensor of another's type and shape."""
    used = memory[: parameter.numel() * parameter.element_size()]
    return used.view(parameter.dtype).view(parameter.shape)


def apply_where(chosen: Tensor, function: Callable[[Tensor, Tensor], Tensor], images: Tensor) -> Tensor:
    """Apply a function to some of the images and leave the others unchanged.

    Args:
        chosen: Which images to change, `bool [B]`, on the host.
        function: Function of the chosen images `uint8 [n, C, H, W]` and their positions `int64 [n]` on the host; it
            returns images of the same shape. It is not called if no image is chosen.
        images: Images `uint8 [B, C, H, W]`.
    """
    position = chosen.nonzero().flatten()
    if len(position) == 0:
        return images
    there = to_device(position, images.device)
    return images.index_copy(0, there, function(images.index_select(0, there), position))


def in_parts(function: Callable[..., Tensor], images: Tensor, *parameters: Tensor) -> Tensor:
    """Apply a function that makes float copies; on a CPU, to a few samples at a time, which is faster there.

    Args:
        function: Function of the images and parameters of some samples; it returns their new images.
        images: Images `uint8 [B, C, H, W]`.
        parameters: Parameters `[B, ...]`, on any device.
    """
    if images.device.type != "cpu":
        return function(images, *parameters)
    samples = max(1, PART // max(1, images[:1].numel()))
    parts = zip(*(torch.split(tensor, samples) for tensor in (images, *parameters)), strict=True)
    return torch.cat([function(*part) for part in parts])
