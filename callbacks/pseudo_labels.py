"""Write predictions as a pseudo-label file."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules import LabeledUnlabeledDataModule
from datamodules.pseudo_label_files import Column, check_output, key_column, write_pseudo_labels
from datamodules.pseudo_labels import Array, Origin
from lightning_modules.image_module import run_folder

CHUNK_ROWS = 8192
"""Rows that are put together at a time: 32 MiB of 1,000 classes."""


class PseudoLabelWriter(Callback):
    """Writes label and confidence of every unlabeled image (or of another `predict_set`) when `predict` runs.

    `datamodules/pseudo_label_files.py` describes the file; give it to the data module as `pseudo_labels`. Rows are in
    the order of the set. Nothing is kept in memory: each process appends its predictions to files beside the
    output, which process 0 puts together in the end (so the folder must be one that all processes share). The
    result has the same bytes whatever the number of processes.

    `tailmatch predict` runs one with these defaults if the configuration has none.

    Args:
        output: The file, `.npz` or `.parquet`; null is `pseudo_labels.npz` in the run folder.
        probs: Also write the whole rows of probabilities, for soft labels.
        overwrite: Replace the file if it exists.
    """

    def __init__(self, output: str | None = None, probs: bool = False, overwrite: bool = False) -> None:
        self.output = None if output is None else Path(output)
        self.probs = probs
        self.overwrite = overwrite
        self._path = Path()
        self._open = ExitStack()
        self._shards: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before the work that the file can be written.

        Raises:
            ValueError: It exists and may not be replaced, its suffix is unknown, or there is no data module.
        """
        if stage != "predict":
            return
        if not isinstance(getattr(trainer, "datamodule", None), LabeledUnlabeledDataModule):
            raise ValueError("PseudoLabelWriter labels the images of a data module, and predict was given none")
        self._path = self.output or run_folder(trainer) / "pseudo_labels.npz"
        check_output(self._path, self.overwrite)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process' files."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        names = ("label", "confidence", "probs") if self.probs else ("label", "confidence")
        for name in names:
            self._shards[name] = self._open.enter_context(self._shard(name, trainer.global_rank).open("wb"))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Append a batch."""
        confidence, label = outputs["probs"].max(dim=1)
        self._shards["label"].write(label.cpu().numpy().tobytes())
        self._shards["confidence"].write(confidence.cpu().numpy().tobytes())
        if self.probs:
            self._shards["probs"].write(outputs["probs"].cpu().numpy().tobytes())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the processes' rows together.

        Raises:
            ValueError: Rows are missing.
        """
        self._open.close()
        trainer.strategy.barrier("pseudo-labels are on the disk")
        if trainer.is_global_zero:
            data: LabeledUnlabeledDataModule = trainer.datamodule  # type: ignore[attr-defined]
            pool = data.predicted.images
            checkpoint = file_digest(Path(trainer.ckpt_path)) if trainer.ckpt_path else ""
            origin = Origin(data.class_names, checkpoint, pool.fingerprint(), len(pool.pixels))
            write_pseudo_labels(self._path, self._columns(data, trainer.world_size), origin)
            print(f"{len(data.predicted):,} pseudo-labels: {self._path}", flush=True)
        trainer.strategy.barrier("pseudo-labels are written")
        self._remove_shards(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        self._open.close()
        self._remove_shards(trainer)

    def _columns(self, data: LabeledUnlabeledDataModule, world_size: int) -> dict[str, Column]:
        total, block = len(data.predicted), data.eval_batch_size
        chunk = block * max(1, CHUNK_ROWS // block)
        columns = {"key": key_column(data.predicted, chunk)}
        for name in self._shards:
            dtype = np.dtype(np.int64 if name == "label" else np.float32)
            width = (data.num_classes,) if name == "probs" else ()
            files = [self._shard(name, rank) for rank in range(world_size)]
            written = sum(file.stat().st_size for file in files) // (dtype.itemsize * int(np.prod(width)))
            if written != total:
                raise ValueError(
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
        self._shards = {}


def merged_blocks(
    files: list[Path], dtype: np.dtype[Any], width: tuple[int, ...], *, total: int, block: int, chunk: int
) -> Iterator[Array]:
    """Rows of all files in order, `chunk` at a time: block b of them is the next in file `b % len(files)`.

    Args:
        files: Rows of each process, one after another.
        dtype: Of their elements.
        width: Shape of a row.
        total: Rows of all files.
        block: Rows in a block.
        chunk: Rows to yield, a multiple of `block`.
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


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            sha.update(part)
    return sha.hexdigest()
