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
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError

VERSION = 3
"""The version of the pixels; it rises when they or the readable files change, so that old caches are not used."""

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
}
_NOT_IN_EVERY_PILLOW = {"JPEG2000": "jpg_2000", "AVIF": "avif"}


def _is_read(kind: str) -> bool:
    """Tell whether this Pillow reads a format."""
    feature = _NOT_IN_EVERY_PILLOW.get(kind)
    known = feature in features.modules or feature in features.codecs
    return feature is None or (known and bool(features.check(feature)))


FORMATS = tuple(kind for kind in _SUFFIXES if _is_read(kind))
"""The formats that are read. Pillow knows more, and runs Ghostscript where a file of any suffix is PostScript."""

IMAGE_SUFFIXES = {suffix for kind in FORMATS for suffix in _SUFFIXES[kind]}
"""The suffixes of these formats, in lower case."""

MOST_BYTES = 2**30
"""The largest image file that is read. It bounds the memory that a wrong file takes."""

_EXIF_ORIENTATION = 0x0112


class UnreadableImage(SettingsError):
    """A file that is no whole image; the message says why, in one clause without the file's name."""


def read_image_file(path: str | Path) -> bytes:
    """Read the content of an image file. Pipes, on which reading would wait forever, and devices are not read.

    Raises:
        UnreadableImage: The path is no regular file, or it cannot be read, or it is larger than `MOST_BYTES`.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableImage("a pipe or a device, not a file")
            if found.st_size > MOST_BYTES:
                raise UnreadableImage(f"{found.st_size / 1e9:.1f} GB, more than an image file has")
            return file.read()
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage("there is no such file") from error
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    except ValueError as error:  # a zero byte in the path
        raise UnreadableImage(f"no path of a file: {error}") from error


@contextmanager
def naming(image: str | Path) -> Iterator[None]:
    """Put the name of the file before the message of an `UnreadableImage` within a `with` block."""
    try:
        yield
    except UnreadableImage as error:
        raise UnreadableImage(f"{image}: {error}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
        UnreadableImage: The file is no image, or not a whole one, or larger than Pillow's bound for images.
    """
    return fitted(file_pixels(data, size), size, size)


def file_pixels(data: bytes, size: int | None = None) -> Tensor:
    """Decode the bytes of an image file to pixels `uint8 [3, H, W]`, as `decode_image` does before it resizes.

    Args:
        data: The content of the file.
        size: The height and width that the image will be resized to: a JPEG file is then decoded with less detail.
            None: all detail is decoded.

    Raises:
        UnreadableImage: See `decode_image`.
    """
    if not data:
        raise UnreadableImage("empty")
    with decoding(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if size is not None:
            image.draft("RGB", (size, size))
        return upright_pixels(image)


@contextmanager
def decoding() -> Iterator[None]:
    """Turn any exception of a decoder within a `with` block into an `UnreadableImage`: Pillow raises all kinds."""
    try:
        yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:  # its message has an address in memory
        raise UnreadableImage("no image of a known format") from error
    except MemoryError as error:
        raise UnreadableImage("it takes more memory than there is") from error
    except Exception as error:
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error


def upright_pixels(image: Image.Image) -> Tensor:
    """Pixels of an image, `uint8 [3, H, W]`, turned as its EXIF tag says; gray, depth and transparency as in a file."""
    pixels = torch.from_numpy(np.array(_rgb(image))).permute(2, 0, 1)
    orientation = _orientation(image)  # after the image is loaded: Pillow turns TIFF images and removes their tag
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    return pixels.flip(_FLIPS[orientation]) if orientation in _FLIPS else pixels


_FLIPS = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}
"""The dimensions of `[3, H, W]` to flip at each orientation (EXIF 2.3, 4.6.4), after 5 to 8 are transposed."""


def _orientation(image: Image.Image) -> int:
    """Read the orientation alone: other tags may be of any kind. An image whose EXIF data is damaged stays as it is."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # Pillow reads whatever a file has in place of a number
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(_high_byte(np.asarray(image))).convert("RGB")  # convert alone would clip at 255
    if image.mode in ("I", "F"):
        raise UnreadableImage(
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
