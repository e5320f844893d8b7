"""The training streams: the images of each, how they are drawn, and whether they lie on the device."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.batches import (
    BalancedBatches,
    LabeledBatches,
    PoolBatches,
    Sampling,
    TrainingBatches,
    UnlabeledBatches,
    sampling_weights,
)
from tailmatch.datamodules.files.file_pixels import FilePixels
from tailmatch.datamodules.images import ImageBatch, ImageRows, Images

if TYPE_CHECKING:
    from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule

OnDevice: TypeAlias = Literal["auto"] | bool

LARGEST_SHARE = 0.1
"""The largest share of a GPU's memory that `auto` gives to images."""


def check_on_device(value: OnDevice) -> None:
    """Refuse what is not `auto`, true or false.

    Raises:
        SettingsError: The value is none of them.
    """
    if value not in ("auto", True, False):
        raise SettingsError(f"on_device is {value!r}; it must be auto, true or false")


@dataclass(frozen=True)
class Stream:
    """A training stream.

    Attributes:
        rows: The images of the stream.
        batches: Which of them each step has.
    """

    rows: ImageRows
    batches: TrainingBatches


def training_streams(data: "LabeledUnlabeledDataModule", names: Collection[str], **place: Any) -> dict[str, Stream]:
    """Make the training streams of these names, after `setup`.

    Args:
        data: The data module.
        names: Some of `labeled`, `balanced`, `unlabeled` and `pool`.
        **place: The seed, rank, world size and first step of `TrainingBatches`.
    """
    steps, labeled = data.steps_per_epoch, data.labeled_batch_size

    def with_labels(kind: type[LabeledBatches], sampling: Sampling) -> Stream:
        weights = sampling_weights(data.labeled.targets, sampling)
        return Stream(data.labeled, kind(len(data.labeled), labeled, steps, weights=weights, **place))

    def without(kind: type[UnlabeledBatches], rows: ImageRows, size: int) -> Stream:
        return Stream(rows, kind(len(rows), size, steps, **place))

    makers: dict[str, Callable[[], Stream]] = {
        "labeled": lambda: with_labels(LabeledBatches, data.labeled_sampling),
        "balanced": lambda: with_labels(BalancedBatches, "balanced"),
        "unlabeled": lambda: without(UnlabeledBatches, data.unlabeled, labeled * data.unlabeled_ratio),
        "pool": lambda: without(PoolBatches, data.pool, labeled),
    }
    return {name: make() for name, make in makers.items() if name in names}


def rows_on_device(streams: Mapping[str, Stream], device: torch.device, wanted: OnDevice) -> dict[str, ImageRows]:
    """Copy the images of training streams to a GPU, those of a pool once; empty if they stay where they are.

    Args:
        streams: The streams, all of one pool.
        device: The device of the training. A CPU has its images in its own memory.
        wanted: Whether they are copied; `auto`: if they are not decoded anew for each batch, and take a tenth of the
            GPU's memory at most.

    Raises:
        SettingsError: They are wanted there and are decoded anew for each batch.
    """
    pool = next(iter(streams.values())).rows.images
    if not wanted or device.type != "cuda":
        return {}
    if wanted == "auto" and (isinstance(pool.pixels, FilePixels) or _bytes(pool) > LARGEST_SHARE * _memory(device)):
        return {}
    there = pool.to(device)
    return {name: stream.rows.to(device, there) for name, stream in streams.items()}


def _bytes(pool: Images) -> int:
    return pool.pixels.shape.numel()  # uint8


def _memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[1]


@dataclass(frozen=True)
class Positions(Dataset[dict[str, Tensor]]):
    """The positions of a batch in place of its images, for images that lie on the device.

    Attributes:
        rows: The images.
    """

    rows: ImageRows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: list[int]) -> dict[str, Tensor]:
        return {"index": torch.tensor(positions, dtype=torch.long)}

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.__getitems__([position])


def fetched(rows: Mapping[str, ImageRows], positions: Mapping[str, Mapping[str, Tensor]]) -> dict[str, ImageBatch]:
    """Fetch the images of a training batch that `Positions` has loaded, on the device."""
    return {name: rows[name].take(position["index"]) for name, position in positions.items()}
