"""Decode an image file to `uint8` pixels: upright, RGB, square.

Pillow decodes, since its draft mode lets the JPEG decoder drop detail that the resize would drop anyway, and since it
is maintained, while torchvision 0.29 announces the removal of its decoder. torch resizes, since its kernel is faster
than Pillow's, to the same pixels but for one gray level. Images per second and core, measured by `python -m
benchmarks.data_loading --decoders`:

    images                               Pillow with draft mode    torchvision    Pillow without
    three megapixels to 128 pixels                          291             96                24
    160 pixels to 128 pixels                              1,752          2,376               894
    32 pixels, not resized                                4,647          7,911             3,362
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError

VERSION = 2
"""The version of the pixels, which rises when they change, so that old caches are not used."""

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""The formats of these suffixes. Pillow knows more, and runs Ghostscript where a file of any suffix is PostScript."""

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""The errors that `decode_image` raises for a file that is no whole image."""


def decode_image(data: bytes, size: int) -> Tensor:
    """Decode the bytes of an image file: the middle square, resized (bicubic, antialiased).

    The image is rotated as its EXIF tag says. Gray images repeat their channel, 16-bit images keep the high byte, and
    transparent images are laid on white.

    Args:
        data: The content of the file.
        size: The height and width of the result in pixels.

    Returns:
        `uint8 [3, size, size]`.

    Raises:
        One of `UNREADABLE`: the file is no image, or not a whole one.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.draft("RGB", (size, size))
        ImageOps.exif_transpose(image, in_place=True)
        return fitted(rgb_pixels(image), size, size)


def rgb_pixels(image: Image.Image) -> Tensor:
    """Pixels of an upright image, `uint8 [3, H, W]`, with gray, depth and transparency as in `decode_image`."""
    return torch.from_numpy(np.array(_rgb(image))).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray(_high_byte(np.asarray(image))).convert("RGB")  # convert alone would clip at 255
    if image.mode in ("I", "F"):
        raise SettingsError(
            f"pixels of mode {image.mode} have no known range: save the image with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        paint = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), paint).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _high_byte(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return (values.astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8)


def fitted(pixels: Tensor, height: int, width: int) -> Tensor:
    """Crop the middle of an image `uint8 [3, H, W]` to the shape of `height` and `width`, and resize it to them.

    An image that has this size already is returned unchanged.
    """
    own_height, own_width = pixels.shape[1:]
    tall = min(own_height, max(1, own_width * height // width))
    wide = min(own_width, max(1, own_height * width // height))
    top, left = (own_height - tall) // 2, (own_width - wide) // 2
    middle = pixels[:, top : top + tall, left : left + wide]
    if (tall, wide) == (height, width):
        return middle.contiguous()
    resized = F.interpolate(middle[None], (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].contiguous()
