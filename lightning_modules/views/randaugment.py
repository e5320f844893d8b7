"""RandAugment as FixMatch uses it: two operations for each sample, each with its own magnitude."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_count, check_share
from tailmatch.lightning_modules.views import ops
from tailmatch.lightning_modules.views.base import View, to_device


@dataclass(frozen=True)
class Operation:
    """An operation of the pool and the range from which its magnitude is drawn uniformly.

    Attributes:
        name: Name in the paper.
        function: For a pixel operation `(images, magnitude) -> images`, or `(images) -> images` if `low` is `high`; for
            a geometric one `(magnitude, height, width) -> matrix`.
        low: Lower end of the range.
        high: Upper end of the range.
        whole: Whether the magnitude is rounded down to a whole number, so that `high` itself is never drawn.
    """

    name: str
    function: Callable[..., Tensor]
    low: float = 0.0
    high: float = 0.0
    whole: bool = False


# FixMatch (arXiv 2001.07685), appendix, Table 12.
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
IDENTITY = 0  # position of the identity in the pool


class RandAugment(View):
    """A sequence of `num_ops` operations, each drawn uniformly from the pool, with replacement.

    Follows the paper: every drawn operation is applied, and its magnitude is uniform over the whole range of Table 12.
    Published code differs: the authors' `libml/augment.py` and PyTorch ports of it apply a drawn operation only with
    probability 0.5 (here `probability=0.5`) and use one of nine magnitudes, which leaves out the ends of the ranges;
    ports also truncate degrees and shifts to whole numbers.

    Args:
        num_ops: Number of operations applied to each sample, at least 0.
        probability: Probability that a drawn operation is applied rather than skipped.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(self, num_ops: int = 2, probability: float = 1.0) -> None:
        super().__init__()
        check_count("num_ops", num_ops, 0)
        check_share("probability", probability)
        self.num_ops = num_ops
        self.probability = probability

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape."""
        for _ in range(self.num_ops):
            choice, magnitude = self.draw(len(images))
            images = apply_choice(images, choice, magnitude)
        return images

    def draw(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw an operation and a magnitude for each sample, on the host.

        Returns:
            Positions in `POOL`, `int64 [B]`, and magnitudes, `float64 [B]`.
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
    """Apply to each sample the operation chosen for it.

    Samples are sorted by their operation, so that each operation works on one slice, whose size the host knows; the
    geometric operations, last in the pool, share one slice.

    Args:
        images: Images `uint8 [B, 3, H, W]`.
        choice: Positions in `POOL`, `int64 [B]`, on the host.
        magnitude: Magnitudes `float64 [B]`, in the units of the operations, on the host.

    Returns:
        Images `uint8 [B, 3, H, W]`, in the order of `images`.
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
    """Apply each pixel operation to the next `sizes[i]` images; return the slices that are not empty."""
    magnitudes = torch.split(to_device(magnitude.to(torch.float32), images.device), sizes)
    done = []
    for op, group, parameter in zip(PIXEL_POOL, torch.split(images, sizes), magnitudes, strict=True):
        if len(group) > 0:
            done.append(op.function(group) if op.low == op.high else op.function(group, parameter))
    return done


def _apply_geometric(images: Tensor, magnitude: Tensor, sizes: list[int]) -> Tensor:
    """Apply each geometric operation to the next `sizes[i]` images, all in one call."""
    height, width = images.shape[2:]
    groups = zip(GEOMETRIC_POOL, torch.split(magnitude, sizes), strict=True)
    matrix = torch.cat([op.function(parameter, height, width) for op, parameter in groups])
    return ops.affine(images, to_device(ops.fixed_point(matrix), images.device))
