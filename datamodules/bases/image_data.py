"""The base of all data modules: facts about the data, and loaders that give each image once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.datamodules.bases.loader_signals import leave_signals_to_parent
from tailmatch.datamodules.batches import EvaluationBatches
from tailmatch.datamodules.images import ImageBatch, ImageBlocks, ImageRows

Loader = DataLoader[ImageBatch]

ChannelStatistics = tuple[float, float, float]
"""One number each for red, green and blue, on the scale of pixels in [0, 1]."""


class ImageDataModule(LightningDataModule, ABC):
    """A data module of images to predict, with the facts that a method needs to know about them.

    A subclass sets `class_names` (in its `__init__`, so that the number of classes is known at once) and implements
    `predicted`.

    Args:
        eval_batch_size: The number of images per validation, test or prediction step and process.
        num_workers: The number of loader processes. 0 is the fastest for data in memory.

    Raises:
        SettingsError: An argument is out of its domain.
    """

    class_names: list[str]
    category_values: Mapping[str, Sequence[str]] = {}  # the values of each level of `categories`, by its name
    mean: ChannelStatistics | None = None  # None: the network keeps its own
    std: ChannelStatistics | None = None
    horizontal_flip: bool = True
    may_download: bool = True  # False: `prepare_data` downloads nothing, since a file from elsewhere names the folder

    def __init__(self, *, eval_batch_size: int = 256, num_workers: int = 0) -> None:
        super().__init__()
        check_count("eval_batch_size", eval_batch_size)
        check_count("num_workers", num_workers, 0)
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers

    @property
    @abstractmethod
    def predicted(self) -> ImageRows:
        """The images that `predict` predicts, after `setup`."""

    def evaluated(self, stage: str) -> ImageRows | None:
        """Give the images that a stage of the trainer validates, tests or predicts, after `setup`; None: no images."""
        return self.predicted if stage == "predict" else None

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int] | None:
        """The number of labeled images of each class, after `setup`. None: the data has no labels."""
        return None

    @property
    def annotated_counts(self) -> list[int] | None:
        """The numbers by which classes are grouped in reports: those of the given labels."""
        return self.class_counts

    @property
    def height_and_width(self) -> list[int]:
        """The height and width of the images in pixels, after `setup`."""
        return list(self.predicted.images.pixels.shape[-2:])

    def left_out(self) -> list[str]:
        """List the images that could not be read and are not among those predicted, after `setup`."""
        return []

    def predict_dataloader(self) -> Loader:
        """Load the `predicted` images, each once; process r of W has blocks r, r + W, ... of `eval_batch_size` rows.

        Raises:
            SettingsError: There are fewer blocks than processes.
        """
        rows = self.predicted
        blocks = ImageBlocks(rows, self.eval_batch_size)
        place = self._place()
        mine = range(place["rank"], len(blocks), place["world_size"])
        if not len(mine):
            raise SettingsError(
                f"{len(rows)} images to predict are {len(blocks)} blocks of eval_batch_size {self.eval_batch_size}, "
                f"fewer than {place['world_size']} processes: use fewer processes, or lower eval_batch_size"
            )
        return self._loader(blocks, sampler=mine, batch_size=None)  # so that Lightning keeps no list of all indices

    def evaluation_loader(self, rows: ImageRows) -> Loader:
        """Load each image once, spread over the processes."""
        batches = EvaluationBatches(len(rows), self.eval_batch_size, **self._place())
        return self._loader(rows, batch_sampler=batches)

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _loader(self, images: Dataset[Any], **batches: Any) -> Loader:
        return DataLoader(
            images,
            **batches,
            collate_fn=_as_fetched,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=leave_signals_to_parent,
        )


def _as_fetched(batch: Any) -> Any:
    return batch
