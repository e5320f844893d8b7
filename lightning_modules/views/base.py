"""What every view shares: uint8 images in, float images in [0, 1] out, parameters drawn on the host."""

import torch
from torch import Tensor, nn


class View(nn.Module):
    """A random augmentation of a batch, with its own parameters for each sample.

    A subclass writes :meth:`augment`, from uint8 to uint8, so that views chain on integers; calling a view
    divides by 255 once, at the end. All parameters come from torch's CPU generator, wherever the images are:
    a seed gives the same views on every device, and nothing waits for the device.
    """

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images of the same shape; the input stays."""
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
            float32 ``[B, 3, H, W]`` in [0, 1].

        Raises:
            ValueError: if the images have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            got = f"{images.dtype} of shape {list(images.shape)}"
            raise ValueError(f"images must be torch.uint8 of shape [B, 3, H, W], got {got}")
        return self.augment(images).to(torch.float32).div_(255)


def to_device(parameters: Tensor, device: torch.device) -> Tensor:
    """Moves parameters drawn on the host without making the host wait (through pinned memory to CUDA)."""
    if device.type == "cuda":
        parameters = parameters.pin_memory()
    return parameters.to(device, non_blocking=True)
