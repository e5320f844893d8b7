"""The base of callbacks that write all predictions to one file, on any number of processes."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.output_files import check_free, naming
from tailmatch.datamodules.pseudo_labels.columns import Column, key_column
from tailmatch.datamodules.pseudo_labels.labels import Array
from tailmatch.lightning_modules.training.run_folder import run_folder

CHUNK_ROWS = 8192
"""Number of rows that are merged at a time: 32 MiB for 1,000 classes."""


class PredictionShards(Callback):
    """Writer of all predictions of `predict` to one file, with rows in the order of the images.

    Nothing is kept in memory: each process appends its rows to temporary files next to the output (shards), which
    process 0 merges at the end, so all processes must share the folder. The result has the same bytes on any number of
    processes. It only appears when it is complete; an error or Ctrl-C leaves no file.

    A subclass defines which arrays of a batch it keeps (`rows`) and how it makes the file from them (`write`).

    Args:
        output: Path of the file; None is `default_name` in the run folder.
        overwrite: Whether to replace the file if it exists; otherwise that is an error.
    """

    default_name: str
    noun = "predictions"

    def __init__(self, output: str | None = None, overwrite: bool = False) -> None:
        self.output = None if output is None else Path(output)
        self.overwrite = overwrite
        self._path = Path()
        self._open = ExitStack()
        self._shards: dict[str, Any] = {}
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}

    def check_output(self, path: Path) -> None:
        """Raise an error before any prediction if the file cannot be written at the end.

        Raises:
            SettingsError: The file exists and may not be replaced.
            OSError: The system refuses to write it.
        """
        check_free(path, self.overwrite)

    def check_data(self, data: ImageDataModule) -> None:
        """Raise an error before any prediction if the file cannot hold these images; the default accepts all.

        Raises:
            SettingsError: The file cannot hold these images.
        """

    @abstractmethod
    def rows(self, probs: Tensor) -> dict[str, Tensor]:
        """Return the arrays `[B, ...]` to keep of a batch, by name.

        Args:
            probs: Probabilities `float32 [B, K]`.

        Returns:
            Arrays with the same names, types and row shapes for every batch.
        """

    @abstractmethod
    def write(self, path: Path, columns: dict[str, Column], trainer: Trainer, data: ImageDataModule) -> None:
        """Write the file from `key` and the columns of `rows`, on process 0."""

    def path_in(self, folder: Path) -> Path:
        """Return the path of the file for a run with this folder."""
        return self.output or folder / self.default_name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before any prediction that the file can be written.

        Raises:
            SettingsError: There is no data module, or `check_output` or `check_data` raises an error.
        """
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise SettingsError(
                f"{type(self).__name__} labels the images of a data module, and predict was given "
                + ("none" if data is None else f"a {type(data).__name__}")
            )
        self._path = self.path_in(run_folder(trainer))
        self.check_output(self._path)
        self.check_data(data)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the folder."""
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Append a batch to this process's shards."""
        with naming(self._path):
            for name, rows in self.rows(outputs["probs"]).items():
                array = rows.cpu().numpy()
                if name not in self._shards:
                    self._kinds[name] = (array.dtype, array.shape[1:])
                    self._shards[name] = self._open.enter_context(self._shard(name, trainer.global_rank).open("wb"))
                self._shards[name].write(array.tobytes())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the rows of all processes.

        Raises:
            SettingsError: Rows are missing.
        """
        with naming(self._path):
            self._open.close()
        trainer.strategy.barrier("predictions are on the disk")
        if trainer.is_global_zero:
            data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
            self.write(self._path, self._columns(data, trainer.world_size), trainer, data)
            left_out = data.left_out()
            without = f" (unreadable images left out: {len(left_out)})" if left_out else ""
            print(f"{len(data.predicted):,} {self.noun}: {self._path}{without}", flush=True)
        trainer.strategy.barrier("predictions are written")
        self._remove_shards(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the shards."""
        with suppress(OSError):  # a full disk refuses what is still in memory, and is what the exception says
            self._open.close()
        self._remove_shards(trainer)

    def _columns(self, data: ImageDataModule, world_size: int) -> dict[str, Column]:
        total, block = len(data.predicted), data.eval_batch_size
        chunk = chunk_rows(data)
        columns = {"key": key_column(data.predicted, chunk)}
        for name, (dtype, width) in self._kinds.items():
            files = [self._shard(name, rank) for rank in range(world_size)]
            written = sum(file.stat().st_size for file in files) // (dtype.itemsize * int(np.prod(width)))
            if written != total:
                raise SettingsError(
                    f"{written} of {total} images were predicted, so no file was written: leave "
                    "limit_predict_batches alone"
                )
            rows = partial(merged_blocks, files, dtype, width, total=total, block=block, chunk=chunk)
            columns[name] = Column(dtype, (total, *width), rows)
        return columns

    def _shard(self, name: str, rank: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}.{rank}.partial")

    def _remove_shards(self, trainer: Trainer) -> None:
        for name in self._shards:
            self._shard(name, trainer.global_rank).unlink(missing_ok=True)
        self._shards, self._kinds = {}, {}


def chunk_rows(data: ImageDataModule) -> int:
    """Return the number of rows that are written at a time: whole blocks of the prediction."""
    return data.eval_batch_size * max(1, CHUNK_ROWS // data.eval_batch_size)


def merged_blocks(
    files: list[Path], dtype: np.dtype[Any], width: tuple[int, ...], *, total: int, block: int, chunk: int
) -> Iterator[Array]:
    """Yield the rows of all files in order, `chunk` at a time: block b is the next one in file `b % len(files)`.

    Args:
        files: Files with the rows of each process.
        dtype: Type of the elements.
        width: Shape of a row.
        total: Number of rows in all files.
        block: Number of rows in a block.
        chunk: Number of rows to yield at a time, a multiple of `block`.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(file.open("rb")) for file in files]
        for start in range(0, total, chunk):
            parts = []
            for first in range(start, min(start + chunk, total), block):
                rows = min(block, total - first)
                data = opened[first // block % len(files)].read(rows * dtype.itemsize * int(np.prod(width)))
                parts.append(np.frombuffer(data, dtype).reshape(rows, *width))
            yield np.concatenate(parts)
