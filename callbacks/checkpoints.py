"""Configure the checkpoints of a run, and write them without ever losing the previous one."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_choice, check_count, check_names
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.checkpoints.weights import not_tensors, read_file
from tailmatch.lightning_modules.metrics import METRICS
from tailmatch.lightning_modules.training.length import total_epochs


class BestCheckpoint(ModelCheckpoint):
    """A callback that keeps the best checkpoint by one metric as `best.ckpt`, or `best-<metric>.ckpt`."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Take no value for the best that is NaN or infinite, also not as the first one."""
        if current is not None and not trainer.strategy.reduce_boolean_decision(bool(current.isfinite())):
            rank_zero_warn(f"{self.monitor} is {float(current)} at step {trainer.global_step}: it is not the best")
            return False
        return super().check_monitor_top_k(trainer, current)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out before the training that nothing logs the metric, and warn if nothing is validated.

        Raises:
            SettingsError: No validation has the metric.
        """
        self._check_monitor(trainer, pl_module)
        between, epochs = trainer.check_val_every_n_epoch, total_epochs(trainer)
        if trainer.limit_val_batches == 0:
            reason = "limit_val_batches is 0"
        elif between is not None and between > epochs:
            reason = f"check_val_every_n_epoch is {between} and the training has {epochs} epochs"
        else:
            return
        rank_zero_warn(f"no {self.filename}.ckpt will be kept, since nothing is validated: {reason}")

    def _check_monitor(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a metric that nothing logs, where all that logs is of this package."""
        monitor = self.monitor or ""
        members = (pl_module, *trainer.callbacks)  # type: ignore[attr-defined]
        foreign = [each for each in members if type(each).__module__.split(".")[0] not in _KNOWN_PACKAGES]
        if foreign or monitor.startswith("train/") or not isinstance(pl_module, ImageClassifier):
            return
        known = [f"val/{name}" for name in METRICS]
        if monitor not in known:
            near = difflib.get_close_matches(monitor, known, n=1)
            raise SettingsError(
                f"checkpoint.monitors has {monitor!r}, which nothing logs; there are {', '.join(known)}"
                + (f"\n  Did you mean: {near[0]}?" if near else "")
            )


_KNOWN_PACKAGES = ("tailmatch", "pytorch_lightning", "lightning")


class PeriodicCheckpoint(ModelCheckpoint):
    """A callback that keeps one checkpoint every n epochs as `epoch-<n>.ckpt`."""


class LastCheckpoint(ModelCheckpoint):
    """A callback that keeps the newest checkpoint as `last.ckpt`: after every epoch, and every n steps."""


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
        """Refuse intervals below 1, and metrics that are no list of names.

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
        raise SettingsError(f"checkpoint.monitors is {plan.monitors}; each metric may be there once")
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


PARTS: dict[str, type] = {
    "state_dict": dict,
    "callbacks": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "class_names": list,
}
"""What a trainer reads from a checkpoint, and of which type each part is."""

NEEDED = ("state_dict", "pytorch-lightning_version", "epoch", "global_step")
"""What every checkpoint of a trainer has."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint plugin that writes next to the target and renames when the file is complete and on disk.

    So a kill at any moment leaves the previous checkpoint. (Lightning moves the file from a temporary folder, which on
    another file system is a copy that can be interrupted.) It only reads tensors and plain values, so no code in a file
    is ever executed. It only removes files that lie beside those that it saved: the names come from the state in the
    checkpoint that is resumed, and Lightning would remove any folder or URL that this state names.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save `checkpoint` to a local `path`."""
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)
        self._folders.add(Path(path).resolve().parent)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, if this plugin saves into its folder."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file() and file.resolve().parent in self._folders:
            file.unlink()

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the content of a checkpoint, on the CPU.

        Raises:
            SettingsError: `weights_only` is False, the file contains more than tensors and plain values, or it is no
                checkpoint of a trainer.
        """
        if weights_only is False:
            raise SettingsError("weights_only is false, and files with code in them are never read: leave it out")
        content: Any = read_file(str(path))
        if not isinstance(content, dict):
            raise SettingsError(
                f"checkpoint {path} is a {type(content).__name__}; it must be a checkpoint of a Trainer"
            )
        wrong: list[object] = [name for name, kind in PARTS.items() if not isinstance(content.get(name, kind()), kind)]
        wrong = wrong or not_tensors(content.get("state_dict", {}))
        missing = [name for name in NEEDED if name not in content]
        if missing or wrong:
            raise SettingsError(
                f"checkpoint {path} has {f'no {missing[0]}' if missing else f'another kind of {wrong[0]}'}; it must be "
                "a whole checkpoint of a Trainer (weights alone: begin a training with them, --model.pretrained FILE)"
            )
        return content
