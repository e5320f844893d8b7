"""Look at a data set of image files before anything is trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tailmatch.datamodules.files.decoding import FORMATS, UnreadableImage, decoding
from tailmatch.datamodules.files.image_files import FileList, ImageFiles
from tailmatch.datamodules.images import Images, Sources

NAMED = 3
"""How many groups of images with the same content are named."""

SAMPLED = 500
"""How many image files are opened to find their sizes."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Survey:
    """What is in a data set of image files.

    Attributes:
        class_names: The names of the K classes.
        counts: `[K]`, the number of labeled images of each class in each split that there is: `train`, `val`, `test`.
        unlabeled: The number of images without a class.
        unreadable: The number of files that are no whole images. They are in none of the other numbers.
        repeated: The number of images whose content an earlier image has.
        contradicting: The number of contents that images of several classes have.
        repeats: Names of some images with the same content, `a.jpg = b.jpg`.
        contradictions: Names of some images with the same content and other classes, `a.jpg (cat) = b.jpg (dog)`.
    """

    class_names: list[str]
    counts: dict[str, list[int]]
    unlabeled: int
    unreadable: int
    repeated: int
    contradicting: int
    repeats: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()

    @property
    def labeled(self) -> list[int]:
        """The number of labeled images of each class in all splits, `[K]`."""
        return [sum(column) for column in zip(*self.counts.values(), strict=True)]


def shorter_sides(data: ImageFiles, lists: Mapping[str, FileList], sampled: int = SAMPLED) -> Integers:
    """Read the sizes of a sample of image files, from their headers.

    Args:
        data: The data set.
        lists: The files of the data set.
        sampled: The number of files to open, which lie evenly over the training files.

    Returns:
        `int64 [n]`, the shorter side of each image in pixels, sorted; files that are no images are left out.
    """
    keys = lists["train"].keys
    places = np.unique(np.linspace(0, len(keys) - 1, min(sampled, len(keys))).astype(int))
    sides = [_shorter_side(data.root / keys[place]) for place in places.tolist()]
    return np.sort(np.array([side for side in sides if side is not None], dtype=np.int64))


def _shorter_side(path: Path) -> int | None:
    try:
        with decoding(), Image.open(path, formats=FORMATS) as image:
            return min(image.size)
    except UnreadableImage:
        return None


def survey(data: ImageFiles, lists: Mapping[str, FileList]) -> Survey:
    """Count the images of a data set, and find those that cannot be read or are there twice.

    All files are decoded into the data set's cache, which a training with the same image size uses as well.

    Args:
        data: The data set, which skips unreadable images.
        lists: The files of the data set.

    Raises:
        SettingsError: No image can be read, or the cache cannot be written.
    """
    sources = data.load()
    splits = _splits(sources)
    listed = sum(len(files.keys) for files in lists.values())
    targets = np.concatenate([images.targets.numpy() for images in splits.values()])
    contents = np.concatenate([_contents(images) for images in splits.values()])
    _, numbers, sizes = np.unique(contents, return_inverse=True, return_counts=True)
    keys = [key for images in splits.values() for key in images.keys or map(str, range(len(images.targets)))]
    contradicting = _contradicting(numbers, targets, len(sizes))
    classes = [f" ({data.class_names[target]})" if target >= 0 else "" for target in targets.tolist()]
    return Survey(
        class_names=list(data.class_names),
        counts={name: _counts(images, data.num_classes) for name, images in splits.items()},
        unlabeled=int((targets < 0).sum()),
        unreadable=listed - len(targets),
        repeated=int((sizes - 1).sum()),
        contradicting=len(contradicting),
        repeats=_together(keys, numbers, (sizes > 1).nonzero()[0]),
        contradictions=_together(
            [f"{key}{name}" for key, name in zip(keys, classes, strict=True)], numbers, contradicting
        ),
    )


def _splits(sources: Sources) -> dict[str, Images]:
    found = {"train": sources.train, "val": sources.val, "test": sources.test}
    return {name: images for name, images in found.items() if images is not None}


def _counts(images: Images, num_classes: int) -> list[int]:
    counts: list[int] = torch.bincount(images.targets[images.targets >= 0], minlength=num_classes).tolist()
    return counts


def _contents(images: Images) -> NDArray[np.void]:
    digests = images.digests
    assert digests is not None  # all images from files have them
    rows = np.ascontiguousarray(digests.numpy())
    return rows.view(np.dtype((np.void, rows.shape[1]))).reshape(-1)


def _contradicting(numbers: Integers, targets: Integers, count: int) -> Integers:
    """Find the contents with labels of several classes, given the number of each image's content."""
    known = targets >= 0
    least, most = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(least, numbers[known], targets[known])
    np.maximum.at(most, numbers[known], targets[known])
    return (most > least).nonzero()[0]


def _together(names: Sequence[str], numbers: Integers, contents: Integers) -> tuple[str, ...]:
    """Name the images of some contents, given the number of each image's content."""
    return tuple(
        " = ".join(names[place] for place in (numbers == content).nonzero()[0]) for content in contents[:NAMED]
    )


def fewest(counts: Sequence[int], names: Sequence[str], below: int) -> list[str]:
    """Name the classes with fewer than `below` images, beginning with the smallest."""
    small = [(count, name) for count, name in zip(counts, names, strict=True) if count < below]
    return [name for _, name in sorted(small)]
