"""Random resized crop: a random part of the image, resized to the size of the view."""

import math

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_count, check_each, check_positive, check_positive_share
from tailmatch.lightning_modules.views.base import FlippingView
from tailmatch.lightning_modules.views.resample import Taps, fixed_point, resample

ATTEMPTS = 10  # torchvision's RandomResizedCrop.get_params; SimCLR's TensorFlow makes up to 100


class RandomResizedCrop(FlippingView):
    """A random box of each image, resized to a square and flipped left to right in half of the images.

    Boxes follow torchvision's `RandomResizedCrop.get_params`: the area is uniform in `scale`, the logarithm of width
    over height uniform in that of `ratio`; the first of ten candidates that fits is placed uniformly; if none fits, the
    box is the largest one in the center with an allowed ratio. Resizing is bilinear and antialiased (the pixels of
    torchvision's `resized_crop` on `uint8` tensors, see `resized_crop`); SimCLR's own code resizes bicubically.

    Args:
        size: Side of the views in pixels; None keeps height and width of the images.
        scale: Smallest and largest area of a box as a share of the image's, in (0, 1]. The default is SimCLR's
            (appendix A); MoCo v2 has (0.2, 1).
        ratio: Smallest and largest width over height of a box, above 0; SimCLR's by default.
        flip: Whether half of the images are flipped left to right. None flips unless the data set says that mirroring
            changes the label, as for digits.
        vertical_flip: Whether half of the images are also flipped upside down, for images without a right way up.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        size: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool | None = None,
        vertical_flip: bool = False,
    ) -> None:
        super().__init__(flip)
        if size is not None:
            check_count("size", size)
        check_each("scale", scale, check_positive_share, length=2)
        check_each("ratio", ratio, check_positive, length=2)
        for name, (least, most) in (("scale", scale), ("ratio", ratio)):
            if least > most:
                raise SettingsError(f"{name} is {(least, most)}; its first number must not exceed the second")
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.vertical_flip = vertical_flip

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8 [B, 3, size, size]`."""
        height, width = images.shape[2:]
        box, flip = self.draw(len(images), height, width)
        upside_down = torch.randint(2, (len(images),), device="cpu").to(torch.bool) if self.vertical_flip else None
        return resized_crop(images, box, flip, self.size or height, self.size or width, upside_down)

    def draw(self, batch_size: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Draw on the host, for each sample, a box (see `draw_box`) and whether to flip it, `bool [B]`."""
        box = draw_box(batch_size, height, width, self.scale, self.ratio)
        return box, (torch.randint(2, (batch_size,), device="cpu") * self.horizontal_flip).to(torch.bool)


def draw_box(
    batch_size: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Draw boxes as torchvision's `RandomResizedCrop.get_params` does, ten candidates for all samples at once.

    Returns:
        Top, left, height and width in pixels, `int64 [4, B]`, on the host.
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
    """Compute the largest box in the center of the image whose width over height lies in `ratio`.

    Returns:
        Top, left, height and width in pixels.
    """
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resized_crop(
    images: Tensor, box: Tensor, flip: Tensor, height: int, width: int, upside_down: Tensor | None = None
) -> Tensor:
    """Crop a box of each image, resize it, and flip it or not.

    Equals `torchvision.transforms.v2.functional.resized_crop(image, *box, [height, width])` and then `horizontal_flip`
    and `vertical_flip`.
    It agrees bit for bit with torch's kernel for `uint8` tensors on a CPU as long as no box is more than three times as
    large as the view, and within one gray level with it beyond that, and with Pillow.

    Args:
        images: Images `uint8 [B, C, H, W]`.
        box: Top, left, height and width in pixels, `int64 [4, B]`, on the host.
        flip: Which images to flip left to right, `bool [B]`, on the host.
        height: Height of the output in pixels.
        width: Width of the output in pixels.
        upside_down: Which images to flip upside down, `bool [B]`, on the host; None flips none.

    Returns:
        Images `uint8 [B, C, height, width]`.
    """
    top, left, box_height, box_width = box
    rows = triangle_taps(top, box_height, height)
    columns = triangle_taps(left, box_width, width)
    columns = _mirrored(columns, flip)
    if upside_down is not None:
        rows = _mirrored(rows, upside_down)
    return resample(images, rows, columns)


def _mirrored(taps: Taps, chosen: Tensor) -> Taps:
    """Return taps whose outputs are in reversed order for the chosen samples, `bool [B]`."""
    return Taps(*(torch.where(chosen[:, None, None], part.flip(1), part) for part in taps))


def triangle_taps(start: Tensor, length: Tensor, size: int) -> Taps:
    """Compute the weights that resize `length` pixels from `start` on to `size` pixels.

    This is Pillow's antialiased bilinear filter (`src/libImaging/Resample.c`, `precompute_coeffs`): output i lies at c
    = (i + 1/2) s of the box, s = length / size. Pixel j of the box has weight max(0, 1 - abs(j + 1/2 - c) / max(s, 1)),
    divided by the sum of these weights.

    Args:
        start: First pixels `int64 [B]`, on the host.
        length: Numbers of pixels `int64 [B]`, at least 1, on the host.
        size: Number N of output pixels.

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
