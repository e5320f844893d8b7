"""Random resized crop: a random part of the image, stretched to the size of the view."""

import math

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.views.base import FlippingView
from tailmatch.lightning_modules.views.resample import Taps, fixed_point, resample

ATTEMPTS = 10  # torchvision's RandomResizedCrop.get_params; SimCLR's TensorFlow makes up to 100


class RandomResizedCrop(FlippingView):
    """Cuts out a random box of each image, resizes it to a square and flips half of them left to right.

    Boxes follow torchvision's ``RandomResizedCrop.get_params``: area uniform in ``scale``, logarithm of width over
    height uniform in ``ratio``, the first of ten candidates that fits, any place; else the largest box in the
    middle whose ratio is allowed. Resizing is bilinear and antialiased (the pixels of torchvision's
    ``resized_crop`` on uint8 tensors, see :func:`resized_crop`); SimCLR's own code resizes bicubically.

    Args:
        size: side of the views in pixels; ``None`` keeps the height and width of the images.
        scale: least and largest area of a box over that of the image; SimCLR's (appendix A), MoCo v2 has (0.2, 1).
        ratio: least and largest width over height of a box; SimCLR's.
        flip: whether to flip; ``None`` does as the data set says through :meth:`adapt`, and flips till then.
    """

    def __init__(
        self,
        size: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool | None = None,
    ) -> None:
        super().__init__(flip)
        if size is not None:
            check_at_least("size", size, 1)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise SettingsError(f"scale is {scale}; it must be two numbers that rise within (0, 1]")
        if not 0 < ratio[0] <= ratio[1]:
            raise SettingsError(f"ratio is {ratio}; it must be two numbers above 0 that rise")
        self.size = size
        self.scale = scale
        self.ratio = ratio

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images ``[B, 3, size, size]``."""
        height, width = images.shape[2:]
        box, flip = self.draw(len(images), height, width)
        return resized_crop(images, box, flip, self.size or height, self.size or width)

    def draw(self, batch_size: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Draws on the host, for each sample, a box (see :func:`draw_box`) and whether to flip, bool ``[B]``."""
        box = draw_box(batch_size, height, width, self.scale, self.ratio)
        return box, (torch.randint(2, (batch_size,), device="cpu") * self.horizontal_flip).to(torch.bool)


def draw_box(
    batch_size: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Draws boxes as torchvision's ``RandomResizedCrop.get_params`` does, ten candidates for all samples at once.

    Returns:
        top, left, height and width in pixels, int64 ``[4, B]``, on the host.
    """
    uniform = torch.rand((4, ATTEMPTS, batch_size), dtype=torch.float64, device="cpu")
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[0])
    shape = ratio[0] * (ratio[1] / ratio[0]) ** uniform[1]
    box_height, box_width = (area / shape).sqrt().round(), (area * shape).sqrt().round()
    fits = (box_height > 0) & (box_height <= height) & (box_width > 0) & (box_width <= width)
    top = (uniform[2] * (height - box_height + 1)).floor()
    left = (uniform[3] * (width - box_width + 1)).floor()
    candidates = torch.stack([top, left, box_height, box_width]).to(torch.int64)
    first = fits.to(torch.uint8).argmax(0)
    chosen = candidates.gather(1, first.expand(4, 1, -1)).squeeze(1)
    fallback = torch.tensor(central_box(height, width, ratio), device="cpu")
    return torch.where(fits.any(0), chosen, fallback[:, None])


def central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest box in the middle of the image whose width over height lies in ``ratio``.

    Returns:
        top, left, height and width in pixels.
    """
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resized_crop(images: Tensor, box: Tensor, flip: Tensor, height: int, width: int) -> Tensor:
    """Cuts a box out of each image, resizes it, and flips it left to right or not.

    ``torchvision.transforms.v2.functional.resized_crop(image, *box, [height, width])``, then
    ``horizontal_flip``. Equal bit for bit to torch's kernel for uint8 tensors on a CPU as long as no box is
    more than three times as large as the view, and within one gray level of it beyond that, and of Pillow.

    Args:
        images: uint8 ``[B, C, H, W]``.
        box: top, left, height and width in pixels, int64 ``[4, B]``, on the host.
        flip: bool ``[B]``, on the host.
        height: of the output, in pixels.
        width: of the output, in pixels.

    Returns:
        uint8 ``[B, C, height, width]``.
    """
    top, left, box_height, box_width = box
    rows = triangle_taps(top, box_height, height)
    columns = triangle_taps(left, box_width, width)
    mirrored = flip[:, None, None]
    columns = Taps(*(torch.where(mirrored, part.flip(1), part) for part in columns))
    return resample(images, rows, columns)


def triangle_taps(start: Tensor, length: Tensor, size: int) -> Taps:
    """Resizes ``length`` pixels from ``start`` on to ``size`` pixels with Pillow's antialiased bilinear filter.

    Output i lies at c = (i + 1/2) s of the box, s = length / size. Pixel j of the box weighs in with
    max(0, 1 - abs(j + 1/2 - c) / max(s, 1)), over the sum of these weights
    (``src/libImaging/Resample.c``, ``precompute_coeffs``).

    Args:
        start: int64 ``[B]``, on the host.
        length: int64 ``[B]``, at least 1, on the host.
        size: N.

    Returns:
        Taps on the host; K is what the longest box needs.
    """
    length = length[:, None, None]
    step = length.to(torch.float64) / size
    support = step.clamp(min=1)
    center = (torch.arange(size, dtype=torch.float64, device="cpu")[:, None] + 0.5) * step
    most = math.ceil(2 * support.max()) if len(length) else 1
    index = (center - support + 0.5).floor() + torch.arange(most, device="cpu")
    weight = (1 - (index + 0.5 - center).abs() / support).clamp_(min=0)
    weight = weight * ((index >= 0) & (index < length))
    index = start[:, None, None] + torch.minimum(index.to(torch.int64).clamp_(min=0), length - 1)
    return Taps(index.to(torch.int32), fixed_point(weight / weight.sum(2, keepdim=True)))
