"""Images in memory (or memory-mapped), fetched a batch at a time."""

from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import NotRequired


class ImageBatch(TypedDict):
    """One stream's batch: `image uint8 [B, 3, H, W]`, `index int64 [B]`, `target int64 [B]` where known."""

    image: Tensor
    index: Tensor
    target: NotRequired[Tensor]


@dataclass(frozen=True)
class Images:
    """A pool of images.

    Attributes:
        pixels: `uint8 [N, 3, H, W]`, possibly memory-mapped; grey images repeat their channel.
        targets: `int64 [N]`, -1 where the class is unknown.
    """

    pixels: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"images are {self.pixels.dtype} {shape}; they must be uint8 [N, 3, H, W]")
        if self.targets.dtype != torch.int64 or tuple(self.targets.shape) != shape[:1]:
            raise ValueError(
                f"targets are {self.targets.dtype} {tuple(self.targets.shape)}; they must be int64 [{shape[0]}]"
            )


@dataclass(frozen=True)
class Sources:
    """What a data set gives: the training pool (target -1: unlabeled only) and its own splits, if any."""

    train: Images
    val: Images | None = None
    test: Images | None = None


@dataclass(frozen=True)
class ImageRows(Dataset[ImageBatch]):
    """Some rows of an image pool. A batch's `index` counts within these rows, 0 to len - 1.

    Attributes:
        images: The pool.
        rows: `int64 [n]` rows of the pool.
        labeled: Whether batches carry their target. Unlabeled batches never do, also where it is known.
    """

    images: Images
    rows: Tensor
    labeled: bool = field(default=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> ImageBatch:
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> ImageBatch:
        """Fetch a whole batch with one `index_select`."""
        index = torch.tensor(positions)
        rows = self.rows[index]
        batch: ImageBatch = {"image": self.images.pixels.index_select(0, rows), "index": index}
        if self.labeled:
            batch["target"] = self.images.targets[rows]
        return batch

    @property
    def targets(self) -> Tensor:
        """Classes of the rows, `int64 [n]`, -1 where unknown: for reports, never in an unlabeled batch."""
        return self.images.targets[self.rows]


def whole(images: Images) -> ImageRows:
    """All rows of a pool, with targets."""
    return ImageRows(images, torch.arange(len(images.targets)))
