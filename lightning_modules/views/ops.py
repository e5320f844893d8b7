"""The 14 operations of FixMatch's RandAugment (arXiv 2001.07685, appendix, Table 12) on batches.

Images are `uint8 [B, 3, H, W]`, in and out. Parameters are `[B]`, on the same device. Each function returns what Pillow
returns for one RGB image, rounding included; its docstring names the Pillow call. No function loops over samples, waits
for the device or changes its input.

The geometric operations are affine maps `(a, b, c, d, e, f)`, `float64 [B, 6]`, which are all applied by `affine`.
Their parameters may stay on the host, where a mixture of maps is assembled for one call.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")
FIXED_POINT_BITS = 16  # Pillow computes affine maps in 16.16 fixed point (src/libImaging/Geometry.c, affine_fixed)
LUMA = (19595, 38470, 7471)  # ITU-R 601-2 luma in 1/65536 (src/libImaging/Convert.c, L24)


def identity(images: Tensor) -> Tensor:
    """Return the images unchanged."""
    return images


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a constant channel stays. `ImageOps.autocontrast(image)`."""
    # Pillow divides in double precision and truncates: float32, or 255 times a reciprocal, would be one level off
    # here and there.
    dtype = torch.float32 if images.device.type == "mps" else torch.float64
    low, high = (bound.to(dtype)[..., None] for bound in images.flatten(2).aminmax(dim=2, keepdim=True))
    constant = high <= low
    scale = torch.where(constant, 1.0, torch.full_like(low, 255).div_(high - low))
    offset = torch.where(constant, 0.0, -low * scale)
    return images.to(dtype).mul_(scale).add_(offset).clamp_(0, 255).to(torch.uint8)


def enhance(images: Tensor, factor: Tensor, sizes: Sequence[int]) -> Tensor:
    """Apply Pillow's enhancements, each to the next `sizes[i]` images, in the order of `ENHANCEMENTS`, in one blend.

    `ImageEnhance.Brightness(image).enhance(factor)` blends with black, `Color` with the gray image, `Contrast` with the
    mean gray and `Sharpness` with a smoothed image. Factor 1 changes nothing.

    Args:
        images: Images `uint8 [B, 3, H, W]`.
        factor: Factors `[B]`.
        sizes: Four numbers of images; their sum is B.
    """
    values = images.to(torch.float32)
    base = torch.zeros_like(values)  # black
    _, gray, mean, smooth = torch.split(base, list(sizes))
    _, colored, contrasted, sharpened = torch.split(images, list(sizes))
    if len(colored) or len(contrasted):
        levels = luma(images[sizes[0] : sizes[0] + sizes[1] + sizes[2]])
        if len(colored):
            gray.copy_(levels[: sizes[1]])
        if len(contrasted):
            pixels = images.shape[2] * images.shape[3]
            total = levels[sizes[1] :].sum((1, 2, 3), keepdim=True)
            mean.copy_(torch.div(total + pixels // 2, pixels, rounding_mode="floor"))  # int(total / pixels + 0.5)
    if len(sharpened):
        smooth.copy_(sharpened)  # Pillow leaves the border unfiltered
        smooth[:, :, 1:-1, 1:-1] = _smoothed(torch.split(values, list(sizes))[3])
    mixed = values.sub_(base).mul_(_per_sample(factor)).add_(base)  # `Image.blend`: float32, clipped and truncated
    return mixed.clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black. `ImageEnhance.Brightness(image).enhance(factor)`."""
    return enhance(images, factor, (len(images), 0, 0, 0))


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image. `ImageEnhance.Color(image).enhance(factor)`."""
    return enhance(images, factor, (0, len(images), 0, 0))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean gray. `ImageEnhance.Contrast(image).enhance(factor)`."""
    return enhance(images, factor, (0, 0, len(images), 0))


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image. `ImageEnhance.Sharpness(image).enhance(factor)`."""
    return enhance(images, factor, (0, 0, 0, len(images)))


def equalize(images: Tensor) -> Tensor:
    """Equalize the histogram of each channel. `ImageOps.equalize(image)`."""
    values = images.flatten(2).to(torch.int64)
    counts = torch.zeros((*values.shape[:2], 256), dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, values, torch.ones((1, 1, 1), dtype=torch.int32, device=images.device).expand_as(values))
    up_to = counts.cumsum(2, dtype=torch.int32)
    brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = torch.div(values.shape[2] - brightest, 255, rounding_mode="floor")
    table = torch.div(up_to - counts + step // 2, step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    levels = torch.arange(256, dtype=torch.int32, device=images.device)
    table = torch.where(step > 0, table, levels).to(torch.uint8)
    return table.gather(2, values).view_as(images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the `bits` (whole, 1 to 8) upper bits of each value. `ImageOps.posterize(image, bits)`."""
    return keep_bits(images, upper_bits(bits))


def upper_bits(bits: Tensor) -> Tensor:
    """Make masks `uint8` of the `bits` (whole, 1 to 8) upper bits of a byte."""
    dropped = 8 - bits.to(torch.int32)
    return (256 - (torch.ones_like(dropped) << dropped)).to(torch.uint8)


def keep_bits(images: Tensor, mask: Tensor) -> Tensor:
    """Keep the bits of masks `uint8 [B]`."""
    return images & _per_sample(mask)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values at and above the threshold, in [0, 256]. `ImageOps.solarize(image, threshold)`."""
    bright = (images >= _per_sample(threshold)).to(torch.uint8)
    return images ^ bright.mul_(255)


def rotate_matrix(degrees: Tensor, height: int, width: int) -> Tensor:
    """Return the map of `image.rotate(degrees)`: counter-clockwise about the center."""
    angle = torch.deg2rad(degrees.to(torch.float64))
    cos, sin = angle.cos(), angle.sin()
    x, y = width / 2, height / 2
    return torch.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], 1)


def shear_x_matrix(shear: Tensor, height: int, width: int) -> Tensor:
    """Return the map of `image.transform(image.size, AFFINE, (1, shear, 0, 0, 1, 0))`."""
    return _matrix(b=shear.to(torch.float64))


def shear_y_matrix(shear: Tensor, height: int, width: int) -> Tensor:
    """Return the map of `image.transform(image.size, AFFINE, (1, 0, 0, shear, 1, 0))`."""
    return _matrix(d=shear.to(torch.float64))


def translate_x_matrix(shift: Tensor, height: int, width: int) -> Tensor:
    """Return the map of `image.transform(image.size, AFFINE, (1, 0, shift * width, 0, 1, 0))`."""
    return _matrix(c=torch.floor(shift.to(torch.float64) * width + 0.5))


def translate_y_matrix(shift: Tensor, height: int, width: int) -> Tensor:
    """Return the map of `image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, shift * height))`."""
    return _matrix(f=torch.floor(shift.to(torch.float64) * height + 0.5))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counter-clockwise about the center, black outside. `image.rotate(degrees)`."""
    return _warp(images, rotate_matrix(degrees, *images.shape[2:]))


def shear_x(images: Tensor, shear: Tensor) -> Tensor:
    """Move each row left by `shear` times its number, black outside; see `shear_x_matrix`."""
    return _warp(images, shear_x_matrix(shear, *images.shape[2:]))


def shear_y(images: Tensor, shear: Tensor) -> Tensor:
    """Move each column up by `shear` times its number, black outside; see `shear_y_matrix`."""
    return _warp(images, shear_y_matrix(shear, *images.shape[2:]))


def translate_x(images: Tensor, shift: Tensor) -> Tensor:
    """Move left by `shift` of the width (whole pixels), black outside; see `translate_x_matrix`."""
    return _warp(images, translate_x_matrix(shift, *images.shape[2:]))


def translate_y(images: Tensor, shift: Tensor) -> Tensor:
    """Move up by `shift` of the height (whole pixels), black outside; see `translate_y_matrix`."""
    return _warp(images, translate_y_matrix(shift, *images.shape[2:]))


def fixed_point(matrix: Tensor) -> Tensor:
    """Round maps `(a, b, c, d, e, f)`, `float64 [B, 6]`, to Pillow's fixed point, `int32 [B, 6]`.

    As in Pillow's `affine_fixed`, `c` and `f` include the half pixel from a corner to the center.
    """
    a, b, c, d, e, f = matrix.unbind(1)
    centered = torch.stack([a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e], 1)
    return torch.floor(centered * 2**FIXED_POINT_BITS + 0.5).to(torch.int32)


def affine(images: Tensor, coefficients: Tensor) -> Tensor:
    """Take pixel (x, y) from the one nearest to (a x + b y + c, d x + e y + f), black outside the image.

    `image.transform(image.size, AFFINE, (a, b, c, d, e, f))`, exact for images below 16,384 pixels a side.

    Args:
        images: Images `uint8 [B, 3, H, W]`.
        coefficients: Maps `int32 [B, 6]` on the images' device, from `fixed_point`.
    """
    height, width = images.shape[2:]
    of_x, of_y, constant = coefficients.view(-1, 2, 3)[..., None, None].unbind(2)
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    source = (of_x * x + (of_y * y).add_(constant)).bitwise_right_shift_(FIXED_POINT_BITS)
    source_x, source_y = source.unbind(1)
    near_x, near_y = source_x.clamp(0, width - 1), source_y.clamp(0, height - 1)
    inside = (source_x == near_x).logical_and_(source_y == near_y)
    index = near_y.mul_(width).add_(near_x).to(torch.int64).flatten(1)[:, None]
    return take_pixels(images, index).mul_(inside[:, None].to(torch.uint8))


def take_pixels(images: Tensor, index: Tensor) -> Tensor:
    """Build each image from its own pixels; `index int64 [B, 1, H W]` is row times width plus column."""
    flat = images.flatten(2)
    return flat.gather(2, index.expand_as(flat)).view(images.shape)


def luma(images: Tensor) -> Tensor:
    """Compute gray values, `int32 [B, 1, H, W]` in 0..255. `image.convert("L")`."""
    gray = images[:, 0:1].to(torch.int32).mul_(LUMA[0])
    gray.add_(images[:, 1:2], alpha=LUMA[1]).add_(images[:, 2:3], alpha=LUMA[2])
    return gray.add_(1 << 15).bitwise_right_shift_(16)


def _smoothed(values: Tensor) -> Tensor:
    """Smooth images `float32 [B, 3, H, W]` but for the border, `[B, 3, H - 2, W - 2]`: `ImageFilter.SMOOTH`."""
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth.add_(values[:, :, 1:-1, 1:-1], alpha=4)  # ones around a five, over 13
    return smooth.div_(13).add_(0.5).floor_()


def _warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply maps `float64 [B, 6]`, on any device, to the images."""
    return affine(images, fixed_point(matrix).to(images.device, non_blocking=True))


def _per_sample(parameter: Tensor) -> Tensor:
    """Reshape `[B]` to `[B, 1, 1, 1]`, float64 to float32."""
    if parameter.dtype == torch.float64:
        parameter = parameter.to(torch.float32)
    return parameter[:, None, None, None]


def _matrix(**entries: Tensor) -> Tensor:
    """Return the identity map (1, 0, 0, 0, 1, 0), `[B, 6]`, with some of its entries `a` to `f` replaced."""
    some = next(iter(entries.values()))
    defaults = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 1.0, "f": 0.0}
    return torch.stack([entries.get(k, torch.full_like(some, value)) for k, value in defaults.items()], 1)
