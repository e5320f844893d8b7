"""Which checkpoints a run keeps, and how they are written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.checkpoints.weights import read_file


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint by one metric as `best.ckpt`, or `best-<metric>.ckpt`."""


class PeriodicCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in n epochs as `epoch-<n>.ckpt`."""


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest checkpoint as `last.ckpt`: after every epoch, and every n steps."""


@dataclass
class Checkpoints:
    """The checkpoints of a run, under `<run_dir>/checkpoints`.

    Attributes:
        monitors: Metrics whose best checkpoints are kept. The first is `best.ckpt`, others are
            `best-<metric>.ckpt` (as `best-top5.ckpt` for `val/top5`).
        mode: Whether the largest (`max`) or smallest (`min`) value is the best.
        every_n_epochs: Also keep one in this many epochs (SimMixMatch: 50).
        last_every_n_steps: Also renew `last.ckpt` every this many steps, for long epochs.
    """

    monitors: list[str] = field(default_factory=lambda: ["val/balanced_accuracy"])
    mode: Literal["min", "max"] = "max"
    every_n_epochs: int | None = None
    last_every_n_steps: int | None = None


def checkpoint_callbacks(plan: Checkpoints, folder: Path) -> Sequence[Checkpoint]:
    """Lightning's checkpoint callbacks for a plan."""
    shared: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }
    at_epoch_end = {**shared, "save_on_train_epoch_end": True}
    at_validation = {**shared, "save_on_train_epoch_end": False}  # never, where there is no validation
    callbacks: list[Checkpoint] = []
    for place, monitor in enumerate(plan.monitors):
        name = "best" if place == 0 else f"best-{monitor.split('/')[-1]}"
        callbacks.append(BestCheckpoint(monitor=monitor, mode=plan.mode, filename=name, **at_validation))
    if plan.every_n_epochs:
        callbacks.append(
            PeriodicCheckpoint(
                filename="epoch-{epoch:04d}", every_n_epochs=plan.every_n_epochs, save_top_k=-1, **at_epoch_end
            )
        )
    callbacks.append(LastCheckpoint(filename="last", every_n_epochs=1, **at_epoch_end))
    if plan.last_every_n_steps:
        callbacks.append(LastCheckpoint(filename="last", every_n_train_steps=plan.last_every_n_steps, **shared))
    return callbacks


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is whole and on the disk.

    So a kill at any moment leaves the previous checkpoint. (Lightning's own way moves it from a temporary
    folder, which on another file system is a copy that can be cut off.) Reads tensors and plain values alone, so that
    no code in a file is ever executed.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save `checkpoint` to a local `path`."""
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of a checkpoint, on the CPU.

        Raises:
            SettingsError: `weights_only` is false, or there is more in it than tensors and plain values.
        """
        if weights_only is False:
            raise SettingsError("weights_only is false, and files with code in them are never read: leave it out")
        content: Any = read_file(str(path))
        return dict(content)
