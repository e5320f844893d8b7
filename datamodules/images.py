"""Pools of images in memory, memory-mapped or in files, fetched a batch at a time."""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import NotRequired

from tailmatch.datamodules.arguments import SettingsError

FINGERPRINT_IMAGES = 64
"""How many images' pixels enter a pool's fingerprint: enough to tell data sets apart, at no cost."""


class ImageBatch(TypedDict):
    """A batch of one stream.

    Attributes:
        image: `uint8 [B, 3, H, W]`, the pixels.
        index: `int64 [B]`, the index of each image in the set of its stream.
        target: `int64 [B]`, the class of each image, in labeled and evaluation batches.
        categories: `int64 [B, L]`, the value of each category level, -1 where it is unknown; absent if the data set has
            no levels.
    """

    image: Tensor
    index: Tensor
    target: NotRequired[Tensor]
    categories: NotRequired[Tensor]


class Pixels(Protocol):
    """The pixels of a pool, `uint8 [N, 3, H, W]`: a tensor, or an object that decodes images when they are read."""

    @property
    def shape(self) -> torch.Size:
        """The shape, `[N, 3, H, W]`."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the pixels, `uint8`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Read some rows, `uint8 [n, 3, H, W]`."""

    def to(self, device: torch.device, /) -> Tensor:
        """Read all rows, and copy them to a device."""


@dataclass(frozen=True)
class Images:
    """A pool of N images.

    Attributes:
        pixels: `uint8 [N, 3, H, W]`, in memory, memory-mapped, or decoded when they are read; gray images repeat their
            channel.
        targets: `int64 [N]`, the class of each image, -1 where it is unknown.
        keys: The name of each image, the same in every split: its path within the data set. None: the index in the pool
            is the name.
        file_sizes: `int64 [N]`, the size in bytes of the file of each image. None: the images are not from files.
        categories: `int64 [N, L]`, the value of each of L category levels, -1 where it is unknown. None: no levels.
        digests: `uint8 [N, 16]`, the digest of each file's content, to find images that occur twice. None: the images
            are not from files.

    Raises:
        SettingsError: A shape or type is another one.
    """

    pixels: Pixels
    targets: Tensor
    keys: tuple[str, ...] | None = None
    file_sizes: Tensor | None = None
    categories: Tensor | None = None
    digests: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise SettingsError(f"images are {self.pixels.dtype} {shape}; they must be uint8 [N, 3, H, W]")
        if self.targets.dtype != torch.int64 or tuple(self.targets.shape) != shape[:1]:
            raise SettingsError(
                f"targets are {self.targets.dtype} {tuple(self.targets.shape)}; they must be int64 [{shape[0]}]"
            )
        if self.keys is not None and len(self.keys) != shape[0]:
            raise SettingsError(f"{len(self.keys)} keys for {shape[0]} images; each image needs one")
        if self.categories is not None and (
            self.categories.dtype != torch.int64 or self.categories.ndim != 2 or len(self.categories) != shape[0]
        ):
            raise SettingsError(
                f"categories are {self.categories.dtype} {tuple(self.categories.shape)}; they must be int64 "
                f"[{shape[0]}, L]"
            )

    def to(self, device: torch.device) -> "Images":
        """Copy pixels, classes and categories to a device; the names of the images stay behind."""
        categories = None if self.categories is None else self.categories.to(device)
        return Images(self.pixels.to(device), self.targets.to(device), categories=categories)

    @property
    def has_files(self) -> bool:
        """Whether each image is known by the name and the size of its file."""
        return self.keys is not None and self.file_sizes is not None

    def fingerprint(self) -> str:
        """Compute a digest that tells this pool from others, whatever the split: SHA-256 in hexadecimal.

        For images from files it covers the names and sizes of the files, so that it stays the same at another image
        size. For others it covers the shape, and the pixels of 64 images from the first to the last.
        """
        sha = hashlib.sha256()
        if self.keys is not None:
            sha.update("\0".join(self.keys).encode("utf-8", "surrogateescape"))
        if self.file_sizes is not None:
            sha.update(self.file_sizes.numpy().tobytes())
        else:
            sha.update(str(tuple(self.pixels.shape)).encode())
            rows = torch.linspace(0, len(self.pixels) - 1, FINGERPRINT_IMAGES, dtype=torch.float64).long()
            sha.update(self.pixels[rows].numpy().tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Sources:
    """The image pools of a data set.

    Attributes:
        train: The training pool; images with target -1 are always unlabeled.
        val: The validation split of the data set. None: it has none.
        test: The test split of the data set. None: it has none.
        unlabeled_from: The row of `train` at which a separate unlabeled pool of known classes begins: unlabeled images
            are drawn from these rows alone, labeled and held-out ones from the rows before. None: there is no such
            pool, and all are drawn from the same rows.
    """

    train: Images
    val: Images | None = None
    test: Images | None = None
    unlabeled_from: int | None = None


@dataclass(frozen=True)
class ImageRows(Dataset[ImageBatch]):
    """Some rows of an image pool. The `index` of a batch counts within these rows, 0 to n - 1.

    Attributes:
        images: The pool.
        rows: `int64 [n]`, the rows of the pool.
        labeled: Whether batches carry `target`. Unlabeled batches never do, even if the class is known.
        given: `int64 [n]`, the classes that replace those of the pool, as after label noise. None: those of the pool.
        noisy: Whether the given classes are those of the pool after label noise.
    """

    images: Images
    rows: Tensor
    labeled: bool = field(default=True)
    given: Tensor | None = None
    noisy: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> ImageBatch:
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> ImageBatch:
        """Fetch a whole batch with one `index_select`."""
        return self.take(torch.tensor(positions, dtype=torch.long))

    def take(self, index: Tensor) -> ImageBatch:
        """Fetch the images at these positions, `int64 [B]`, on the device that they lie on."""
        rows = self.rows[index]
        batch: ImageBatch = {"image": self.images.pixels.index_select(0, rows), "index": index}
        if self.labeled:
            batch["target"] = self.images.targets[rows] if self.given is None else self.given[index]
        if self.images.categories is not None:
            batch["categories"] = self.images.categories[rows]
        return batch

    def to(self, device: torch.device, images: Images) -> "ImageRows":
        """Copy the rows to a device, whose copy of the pool is `images`."""
        given = None if self.given is None else self.given.to(device)
        return ImageRows(images, self.rows.to(device), self.labeled, given, self.noisy)

    @property
    def targets(self) -> Tensor:
        """The class of each row, `int64 [n]`, -1 where it is unknown: for reports, never in an unlabeled batch."""
        return self.images.targets[self.rows] if self.given is None else self.given

    @property
    def truth(self) -> Tensor | None:
        """The class of each row before label noise, `int64 [n]`, for reports. None: there is no label noise."""
        return None if self.given is None or not self.noisy else self.images.targets[self.rows]

    @property
    def categories(self) -> Tensor:
        """The categories of each row, `int64 [n, L]`, -1 where they are unknown; `[n, 0]` if the pool has none."""
        known = self.images.categories
        return torch.empty(len(self.rows), 0, dtype=torch.long) if known is None else known[self.rows]


@dataclass(frozen=True)
class ImageBlocks(Dataset[ImageBatch]):
    """Rows in blocks of neighbors: item b has the rows from `b * size` to `(b + 1) * size`; the last may have fewer.

    The images of a block, and so the bits of their predictions, do not depend on the number of processes.

    Attributes:
        rows: The rows.
        size: The number of rows in a block.
    """

    rows: ImageRows
    size: int

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __getitem__(self, block: int) -> ImageBatch:
        start = block * self.size
        return self.rows.__getitems__(list(range(start, min(start + self.size, len(self.rows)))))


def whole(images: Images) -> ImageRows:
    """Take all rows of a pool, with targets."""
    return ImageRows(images, torch.arange(len(images.targets)))
