"""RandAugment as FixMatch uses it: two operations a sample, each with a magnitude of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_at_least, check_share
from tailmatch.lightning_modules.views import ops
from tailmatch.lightning_modules.views.base import View, to_device


@dataclass(frozen=True)
class Operation:
    """An operation of the pool and the range its magnitude is drawn from, uniformly.

    Attributes:
        name: as in the paper.
        function: for a pixel operation ``(images, magnitude) -> images``, or ``(images) -> images`` where
            ``low`` is ``high``; for a geometric one ``(magnitude, height, width) -> matrix``.
        low: lower end of the range.
        high: upper end of the range.
        whole: round the magnitude down to a whole number, so that ``high`` itself is never drawn.
    """

    name: str
    function: Callable[..., Tensor]
    low: float = 0.0
    high: float = 0.0
    whole: bool = False


# FixMatch (arXiv:2001.07685), appendix, Table 12.
PIXEL_POOL = (
    Operation("Identity", ops.identity),
    Operation("AutoContrast", ops.autocontrast),
    Operation("Brightness", ops.brightness, 0.05, 0.95),
    Operation("Color", ops.color, 0.05, 0.95),
    Operation("Contrast", ops.contrast, 0.05, 0.95),
    Operation("Equalize", ops.equalize),
    Operation("Posterize", ops.posterize, 4, 9, whole=True),
    Operation("Sharpness", ops.sharpness, 0.05, 0.95),
    Operation("Solarize", ops.solarize, 0, 256),
)
GEOMETRIC_POOL = (
    Operation("Rotate", ops.rotate_matrix, -30, 30),
    Operation("ShearX", ops.shear_x_matrix, -0.3, 0.3),
    Operation("ShearY", ops.shear_y_matrix, -0.3, 0.3),
    Operation("TranslateX", ops.translate_x_matrix, -0.3, 0.3),
    Operation("TranslateY", ops.translate_y_matrix, -0.3, 0.3),
)
POOL = PIXEL_POOL + GEOMETRIC_POOL
IDENTITY = 0  # its position in the pool


class RandAugment(View):
    """Applies ``num_ops`` operations in turn, each drawn uniformly from the pool, with replacement.

    Follows the paper: every drawn operation is applied, and its magnitude is uniform over the whole range of
    Table 12. Published code differs: the authors' ``libml/augment.py`` and PyTorch ports of it apply a drawn
    operation only with probability 0.5 (``probability=0.5`` does so here) and take one of nine magnitudes,
    which leaves out the ends of the ranges; ports also cut degrees and shifts to whole numbers.

    Args:
        num_ops: operations applied to each sample.
        probability: with which a drawn operation is applied rather than skipped.
    """

    def __init__(self, num_ops: int = 2, probability: float = 1.0) -> None:
        super().__init__()
        check_at_least("num_ops", num_ops, 0)
        check_share("probability", probability)
        self.num_ops = num_ops
        self.probability = probability

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images of the same shape."""
        for _ in range(self.num_ops):
            choice, magnitude = self.draw(len(images))
            images = apply_choice(images, choice, magnitude)
        return images

    def draw(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draws an operation and a magnitude for each sample, on the host.

        Returns:
            positions in :data:`POOL`, int64 ``[B]``, and magnitudes, float64 ``[B]``.
        """
        choice = torch.randint(len(POOL), (batch_size,), device="cpu")
        uniform = torch.rand(batch_size, device="cpu").to(torch.float64)
        if self.probability < 1:
            choice.masked_fill_(torch.rand(batch_size, device="cpu") >= self.probability, IDENTITY)
        ranges = torch.tensor([(op.low, op.high) for op in POOL], dtype=torch.float64, device="cpu")
        low, high = ranges[choice].unbind(1)
        magnitude = low + uniform * (high - low)
        whole = torch.tensor([op.whole for op in POOL], device="cpu")[choice]
        return choice, torch.where(whole, magnitude.floor(), magnitude)


def apply_choice(images: Tensor, choice: Tensor, magnitude: Tensor) -> Tensor:
    """Applies to each sample the operation chosen for it.

    Samples are put in the order of their operations, so that each operation works on one slice, of a size the
    host knows; the geometric operations, last in the pool, share one slice.

    Args:
        images: uint8 ``[B, 3, H, W]``.
        choice: int64 ``[B]``, positions in :data:`POOL`, on the host.
        magnitude: float64 ``[B]``, in the units of the operations, on the host.

    Returns:
        uint8 ``[B, 3, H, W]``, in the order of ``images``.
    """
    order = choice.argsort(stable=True)
    sizes = torch.bincount(choice, minlength=len(POOL)).tolist()
    pixel_sizes, geometric_sizes = sizes[: len(PIXEL_POOL)], sizes[len(PIXEL_POOL) :]
    parts = [sum(pixel_sizes), sum(geometric_sizes)]
    pixel_magnitude, geometric_magnitude = torch.split(magnitude[order], parts)
    there, back = to_device(torch.stack([order, order.argsort()]), images.device).unbind()
    pixel_images, geometric_images = torch.split(images.index_select(0, there), parts)

    done = _apply_pixel(pixel_images, pixel_magnitude, pixel_sizes)
    if parts[1] > 0:
        done.append(_apply_geometric(geometric_images, geometric_magnitude, geometric_sizes))
    return torch.cat(done).index_select(0, back) if done else images


def _apply_pixel(images: Tensor, magnitude: Tensor, sizes: list[int]) -> list[Tensor]:
    """Applies the pixel operations, each to the next ``sizes[i]`` images; gives the slices that hold any."""
    magnitudes = torch.split(to_device(magnitude.to(torch.float32), images.device), sizes)
    done = []
    for op, group, parameter in zip(PIXEL_POOL, torch.split(images, sizes), magnitudes, strict=True):
        if len(group) > 0:
            done.append(op.function(group) if op.low == op.high else op.function(group, parameter))
    return done


def _apply_geometric(images: Tensor, magnitude: Tensor, sizes: list[int]) -> Tensor:
    """Applies the geometric operations, each to the next ``sizes[i]`` images, in one call."""
    height, width = images.shape[2:]
    groups = zip(GEOMETRIC_POOL, torch.split(magnitude, sizes), strict=True)
    matrix = torch.cat([op.function(parameter, height, width) for op, parameter in groups])
    return ops.affine(images, to_device(ops.fixed_point(matrix), images.device))
