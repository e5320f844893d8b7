"""The checkpoints of a run: which are kept, and when they are saved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_choice, check_count, check_names
from tailmatch.lightning_modules.training.length import gradient_is_pending, steps_to_validation, total_epochs


class BestCheckpoint(ModelCheckpoint):
    """A callback that keeps the best checkpoint by one metric as `best.ckpt`, or `best-<metric>.ckpt`."""

    setting = "checkpoint.monitors has"
    """Where its metric is set, for messages."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Never take a NaN or infinite value for the best, not even the first value."""
        if current is not None and not trainer.strategy.reduce_boolean_decision(bool(current.isfinite())):
            rank_zero_warn(f"{self.monitor} is {float(current)} at step {trainer.global_step}: it is not the best")
            return False
        return super().check_monitor_top_k(trainer, current)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn before the training if nothing is validated; `check_monitors` has found that the metric exists."""
        between, epochs = trainer.check_val_every_n_epoch, total_epochs(trainer)
        first = steps_to_validation(trainer)
        if trainer.limit_val_batches == 0:
            reason = "limit_val_batches is 0"
        elif between is not None and between > epochs:
            reason = f"check_val_every_n_epoch is {between} and the training has {epochs} epochs"
        elif first is not None and 0 <= trainer.max_steps < first:
            reason = f"max_steps is {trainer.max_steps}, and the first one would be after {first} steps"
        else:
            return
        rank_zero_warn(f"no {self.filename}.ckpt will be saved, since there is no validation: {reason}")


class PeriodicCheckpoint(ModelCheckpoint):
    """A callback that keeps one checkpoint every n epochs as `epoch-<n>.ckpt`."""


class LastCheckpoint(ModelCheckpoint):
    """A callback that keeps the newest checkpoint as `last.ckpt`: after every epoch, and every n steps."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save every n steps, but never a part of an accumulated gradient, which no checkpoint has."""
        if not gradient_is_pending(trainer):
            super().on_train_batch_end(trainer, *args)


@dataclass
class Checkpoints:
    """The checkpoints of a run, in `<run_dir>/checkpoints`.

    Attributes:
        monitors: Metrics by which a best checkpoint is kept. That of the first is `best.ckpt`, the others are
            `best-<metric>.ckpt` (such as `best-top5.ckpt` for `val/top5`).
        mode: Whether the largest (`max`) or the smallest (`min`) value is the best.
        every_n_epochs: Interval, in epochs, at which further checkpoints are kept as `epoch-<n>.ckpt` (SimMixMatch:
            50); None keeps none.
        last_every_n_steps: Interval, in optimizer steps, at which `last.ckpt` is renewed within long epochs; None
            renews it after every epoch only.
    """

    monitors: list[str] = field(default_factory=lambda: ["val/balanced_accuracy"])
    mode: Literal["min", "max"] = "max"
    every_n_epochs: int | None = None
    last_every_n_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse intervals below 1, and metrics that are not a list of names.

        Raises:
            SettingsError: An argument is out of its domain.
        """
        check_names("monitors", self.monitors)
        check_choice("mode", self.mode, ("min", "max"))
        for name in ("every_n_epochs", "last_every_n_steps"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))


def checkpoint_callbacks(plan: Checkpoints, folder: Path) -> Sequence[Checkpoint]:
    """Create Lightning's checkpoint callbacks for a plan.

    Raises:
        SettingsError: Two of the metrics would be kept in one file.
    """
    names = [monitor.split("/")[-1] for monitor in plan.monitors]
    if len(set(names)) < len(names):
        raise SettingsError(f"checkpoint.monitors is {plan.monitors}; each metric may be listed once")
    shared: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }
    at_epoch_end = {**shared, "save_on_train_epoch_end": True}
    at_validation = {**shared, "save_on_train_epoch_end": False}  # saves nothing without validation
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
