"""Convert images of any kind to pixels: files, PIL images, arrays, tensors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_between, check_count, check_each
from tailmatch.datamodules.files.decoding import (
    decode_image,
    decoding,
    file_pixels,
    fitted,
    naming,
    read_image_file,
    upright_pixels,
)

ACCEPTED = (
    "images are files, PIL images, or arrays and tensors of uint8 from 0 to 255: [H, W], [H, W, 3] or [3, H, W], and N "
    "of one size as [N, H, W], [N, H, W, 3] or [N, 3, H, W]"
)

MOST_SIDE = 2**14
"""Most pixels of a side to which images are resized: 768 MB an image."""

_CHANNELS = (1, 3)
_WITH_ALPHA = (2, 4)


def image_pixels(image: object) -> Tensor:
    """Convert one image to pixels, `uint8 [3, H, W]`.

    Args:
        image: A path, a PIL image, an array or a tensor. If both its first and its last dimension could be that of the
            channels, it is the last one of an array and the first one of a tensor.

    Raises:
        SettingsError: The image is none of these, or a file that cannot be read.
    """
    if isinstance(image, str | Path):
        with naming(image):
            return file_pixels(read_image_file(image))
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise SettingsError(f"an image is {image.width} x {image.height} pixels; it must have at least one")
        with naming(getattr(image, "filename", "") or "an image"), decoding():  # it may not be decoded yet
            return upright_pixels(image)
    pixels = _uint8(image)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3:
        raise _refused(image)
    return _channels_first(pixels[None], image)[0]


def fitted_pixels(image: object, height: int, width: int) -> Tensor:
    """Convert one image (see `image_pixels`) to pixels `uint8 [3, height, width]`, those of a cache if it is a file.

    Raises:
        SettingsError: The image is of no known kind, or a file that cannot be read.
    """
    if isinstance(image, str | Path) and height == width:
        with naming(image):
            return decode_image(read_image_file(image), height)
    return fitted(image_pixels(image), height, width)


def check_side(name: str, value: int) -> None:
    """Refuse a height or width that is no whole number, below 1, or beyond any use.

    Raises:
        SettingsError: The value is out of its domain.
    """
    check_count(name, value)
    check_between(name, value, 1, MOST_SIDE)


def height_and_width(image_size: int | Sequence[int] | None, images: Sequence[object]) -> tuple[int, int]:
    """Find the height and width that images are resized to.

    Args:
        image_size: The height and width in pixels, one number or both. None: the size that all images have.
        images: The images, see `image_pixels`; they are only read if `image_size` is None.

    Raises:
        SettingsError: `image_size` is below 1, or is None and the images have several sizes.
    """
    if image_size is not None:
        if not isinstance(image_size, Sequence) or isinstance(image_size, str):
            check_side("image_size", image_size)
            return image_size, image_size
        check_each("image_size", image_size, check_side, length=2)
        height, width = image_size
        return height, width
    sizes = {tuple(image_pixels(image).shape[1:]) for image in images}
    if len(sizes) != 1:
        raise SettingsError(f"images have {len(sizes)} sizes: give image_size, to which all are resized")
    [(height, width)] = sizes
    return height, width


def is_stack(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]] | Tensor") -> bool:
    """Tell whether an array holds several images: it has four dimensions, or three, none of them that of channels."""
    shape = tuple(array.shape)
    channels = (*_CHANNELS, *_WITH_ALPHA)
    return len(shape) == 4 or (len(shape) == 3 and shape[0] not in _CHANNELS and shape[2] not in channels)


def stacked_pixels(images: object) -> Tensor:
    """Convert an array or a tensor of N images to pixels, `uint8 [N, 3, H, W]`; three dimensions are gray images.

    Raises:
        SettingsError: The argument is no such array or tensor.
    """
    pixels = _uint8(images)
    if pixels.ndim == 3 and 0 not in pixels.shape[1:]:
        return pixels[:, None].expand(-1, 3, -1, -1)
    if pixels.ndim != 4:
        raise _refused(images)
    return _channels_first(pixels, images)


def _uint8(array: object) -> Tensor:
    if isinstance(array, np.ndarray) and array.dtype == np.uint8:
        return torch.from_numpy(np.array(array, order="C"))
    if isinstance(array, Tensor) and array.dtype == torch.uint8:
        return array.cpu()
    raise _refused(array)


def _channels_first(pixels: Tensor, source: object) -> Tensor:
    """Bring `[N, C, H, W]` or `[N, H, W, C]` to `[N, 3, H, W]`."""
    first, last = pixels.shape[1] in _CHANNELS, pixels.shape[3] in _CHANNELS
    if not first and not last or 0 in pixels.shape[1:]:
        raise _refused(source)
    if last and not (first and isinstance(source, Tensor)):
        pixels = pixels.permute(0, 3, 1, 2)
    return pixels.expand(-1, 3, -1, -1)


def _refused(value: object) -> SettingsError:
    kind = type(value).__name__
    if isinstance(value, np.ndarray | Tensor):
        kind += f" of {value.dtype} {list(value.shape)}"
        if "float" in str(value.dtype):
            kind += ", perhaps from a transform such as ToTensor"
        elif value.ndim > 2 and value.shape[-1] in _WITH_ALPHA:
            kind += ", perhaps with transparency: open it with PIL and give that, or leave the last channel out"
    return SettingsError(f"an image is a {kind}; {ACCEPTED}")
