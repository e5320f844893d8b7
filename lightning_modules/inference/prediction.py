"""Preparation of images of any kind for a network, and the predictions of them."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.listing import image_files
from tailmatch.datamodules.files.pixels import (
    ACCEPTED,
    fitted_pixels,
    height_and_width,
    image_pixels,
    is_stack,
    stacked_pixels,
)

Item: TypeAlias = "Path | Image.Image | Tensor"
"""One image: a file, a PIL image, or pixels `uint8 [3, H, W]`."""

SHOWN = 5
"""Largest number of images that a printed result shows."""


@dataclass(frozen=True, repr=False)
class Predictions:
    """Predictions of N images.

    Attributes:
        probs: Class probabilities `float32 [N, K]` on the CPU, whose rows sum to 1.
        class_names: Names of the K classes, in the order of the columns.
        files: Path of each image that was given as a file; None for any other image.
    """

    probs: Tensor
    class_names: Sequence[str]
    files: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.probs)

    @property
    def labels(self) -> Tensor:
        """The most likely class of each image, `int64 [N]`."""
        return self.probs.argmax(dim=1)

    @property
    def names(self) -> list[str]:
        """The name of the most likely class of each image."""
        return [self.class_names[label] for label in self.labels.tolist()]

    @property
    def confidence(self) -> Tensor:
        """The probability of the most likely class of each image, `float32 [N]`."""
        return self.probs.amax(dim=1)

    def __repr__(self) -> str:
        """Return the first images with their class and its probability."""
        rows = zip(self.files, self.names, self.confidence.tolist(), strict=True)
        shown = [f"{'' if file is None else f'{file}: '}{name} {share:.3f}" for file, name, share in rows][:SHOWN]
        more = [f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return f"Predictions of {len(self)} images ({', '.join(shown + more)})"


def listed_images(images: object) -> list[Item]:
    """List the single images in whatever was given to `ImageClassifier.predict`.

    Raises:
        MissingFileError: A file or folder does not exist.
        SettingsError: An object is not an image of a known kind, or there are no images.
    """
    items = list(_items(images))
    if not items:
        raise SettingsError("there are no images to predict")
    return items


def _items(images: object) -> Iterator[Item]:
    if isinstance(images, str | Path):
        yield from _files(Path(images))
    elif isinstance(images, Image.Image):
        yield images
    elif isinstance(images, np.ndarray | Tensor):
        if is_stack(images):
            yield from stacked_pixels(images)
        else:
            yield image_pixels(images)
    elif isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | io.IOBase):
        for part in images:
            yield from _items(part)
    else:
        raise SettingsError(f"images are a {type(images).__name__}; {ACCEPTED}, or a folder, or a list of these")


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        keys = image_files(path, "")
        if not keys:
            raise SettingsError(f"the folder {path} has no images in it")
        yield from (path / key for key in keys)
    elif path.is_file():
        yield path
    else:
        raise MissingFileError(f"there is no image file or folder {path.resolve()}")


def files_of(items: Sequence[Item]) -> list[str | None]:
    """Return the path of each image that is a file, None for any other image."""
    return [str(item) if isinstance(item, Path) else None for item in items]


def pixel_batches(
    items: Sequence[Item], image_size: int | Sequence[int] | None, batch_size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Read images in parallel, batch by batch; yield the rows of a batch and its pixels `uint8 [B, 3, H, W]`.

    Args:
        items: Images to read.
        image_size: Height and width in pixels, or one number for both; None requires that all images have the same
            size, and keeps it.
        batch_size: Largest number B of images in a batch.

    Raises:
        SettingsError: An image cannot be read, or `image_size` is None and the images have several sizes.
    """
    height, width = height_and_width(image_size, items)

    def read(item: Item) -> Tensor | str:
        try:
            return fitted_pixels(item, height, width)
        except SettingsError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), batch_size):
            read_items = list(pool.map(read, items[start : start + batch_size]))
            bad = [reason for reason in read_items if isinstance(reason, str)]
            if bad:
                raise SettingsError("images cannot be read:\n  " + "\n  ".join(bad))
            pixels = torch.stack([item for item in read_items if isinstance(item, Tensor)])
            yield slice(start, start + len(pixels)), pixels
