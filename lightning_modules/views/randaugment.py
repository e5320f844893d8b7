"""RandAugment as FixMatch uses it: two operations for each sample, each with its own magnitude."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_count, check_share
from tailmatch.lightning_modules.views import ops
from tailmatch.lightning_modules.views.base import View, all_to_device


@dataclass(frozen=True)
class Operation:
    """An operation of the pool and the range from which its magnitude is drawn uniformly.

    Attributes:
        name: Name in the paper.
        low: Lower end of the range.
        high: Upper end of the range.
        whole: Whether the magnitude is rounded down to a whole number, so that `high` itself is never drawn.
        matrix: For a geometric operation, the function `(magnitude, height, width) -> matrix`.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    matrix: Callable[[Tensor, int, int], Tensor] | None = None


# FixMatch (arXiv 2001.07685), appendix, Table 12.
PIXEL_POOL = (
    Operation("Identity"),
    Operation("AutoContrast"),
    Operation("Brightness", 0.05, 0.95),
    Operation("Color", 0.05, 0.95),
    Operation("Contrast", 0.05, 0.95),
    Operation("Equalize"),
    Operation("Posterize", 4, 9, whole=True),
    Operation("Sharpness", 0.05, 0.95),
    Operation("Solarize", 0, 256),
)
GEOMETRIC_POOL = (
    Operation("Rotate", -30, 30, matrix=ops.rotate_matrix),
    Operation("ShearX", -0.3, 0.3, matrix=ops.shear_x_matrix),
    Operation("ShearY", -0.3, 0.3, matrix=ops.shear_y_matrix),
    Operation("TranslateX", -0.3, 0.3, matrix=ops.translate_x_matrix),
    Operation("TranslateY", -0.3, 0.3, matrix=ops.translate_y_matrix),
)
POOL = PIXEL_POOL + GEOMETRIC_POOL
SLICES = ("Identity", "AutoContrast", "Equalize", "Posterize", "Solarize", *ops.ENHANCEMENTS)
"""The pixel operations in the order of their slices of a batch; those of the geometric operations follow."""
RANKS = [*(SLICES.index(op.name) for op in PIXEL_POOL), *range(len(PIXEL_POOL), len(POOL))]
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
        layers = [Layer.of(*self.draw(len(images)), *images.shape[2:]) for _ in range(self.num_ops)]
        return apply_layers(images, layers)

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


@dataclass(frozen=True)
class Layer:
    """One operation for each sample, as the host prepares it.

    Attributes:
        sizes: How many samples each operation has, those of `SLICES` first.
        parameters: On the host: the samples in this order, `int64 [B]`, and the way back; masks for Posterize, `uint8`;
            thresholds for Solarize and factors of the enhancements, `float32`; maps of the geometric operations in
            fixed point, `int32 [n, 6]`.
    """

    sizes: list[int]
    parameters: list[Tensor]

    @classmethod
    def of(cls, choice: Tensor, magnitude: Tensor, height: int, width: int) -> "Layer":
        """Prepare what was drawn.

        Args:
            choice: Positions in `POOL`, `int64 [B]`, on the host.
            magnitude: Magnitudes `float64 [B]`, in the units of the operations, on the host.
            height: Height of the images.
            width: Width of the images.
        """
        rank = torch.tensor(RANKS, device="cpu")[choice]
        order = rank.argsort(stable=True)
        sizes = torch.bincount(rank, minlength=len(POOL)).tolist()
        drawn = torch.split(magnitude[order], sizes)
        masks, thresholds, factors = ops.upper_bits(drawn[3]), drawn[4].float(), torch.cat(drawn[5:9]).float()
        pairs = zip(GEOMETRIC_POOL, drawn[9:], strict=True)
        maps = torch.cat([op.matrix(part, height, width) for op, part in pairs if op.matrix is not None])
        return cls(sizes, [order, order.argsort(), masks, thresholds, factors, ops.fixed_point(maps)])


def apply_layers(images: Tensor, layers: list[Layer]) -> Tensor:
    """Apply the operations of each layer, one after the other.

    Samples are sorted by their operation, so that each operation works on one slice, whose size the host knows.

    Args:
        images: Images `uint8 [B, 3, H, W]`.
        layers: Layers for B samples.

    Returns:
        Images `uint8 [B, 3, H, W]`, in the order of `images`.
    """
    parameters = iter(all_to_device([each for layer in layers for each in layer.parameters], images.device))
    for layer in layers if len(images) else ():
        order, back, masks, thresholds, factors, maps = (next(parameters) for _ in layer.parameters)
        *sizes, enhancements, geometric = *layer.sizes[:5], layer.sizes[5:9], layer.sizes[9:]
        same, stretched, equal, few, solar, enhanced, moved = torch.split(
            images.index_select(0, order), [*sizes, sum(enhancements), sum(geometric)]
        )
        done = [
            same,
            *_if_any(stretched, ops.autocontrast),
            *_if_any(equal, ops.equalize),
            *_if_any(few, ops.keep_bits, masks),
            *_if_any(solar, ops.solarize, thresholds),
            *_if_any(enhanced, ops.enhance, factors, enhancements),
            *_if_any(moved, ops.affine, maps),
        ]
        images = torch.cat(done).index_select(0, back)
    return images


def _if_any(images: Tensor, function: Callable[..., Tensor], *parameters: object) -> list[Tensor]:
    """Apply a function to a slice of the images, unless it is empty."""
    return [function(images, *parameters)] if len(images) else []
