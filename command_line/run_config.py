"""Save the configuration of a run in its folder and in its checkpoints."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger

from tailmatch.callbacks.reports.run_settings import all_settings
from tailmatch.callbacks.reports.scalars import log_settings
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import CONFIG_KEY

METRICS_BESIDE = ("val/balanced_accuracy", "val/top1", "val/macro_f1")
"""The metrics that TensorBoard shows beside the settings."""


class RunConfig(SaveConfigCallback):
    """A callback that saves the configuration of a fit as `config.yaml` and in every checkpoint.

    `config.yaml` is written when the training starts. A command that fails before its first result leaves no file, so
    that the next run can use the folder.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._written: Path | None = None
        self._has_results = False
        self._logs_before = set(self._logs(Path(self.config.run_dir)))

    def _logs(self, run_dir: Path) -> Iterator[Path]:
        """Yield the logs of this process, and the arguments that TensorBoard shows."""
        yield from run_dir.glob(f"events.out.tfevents.*.{os.getpid()}.*")
        yield from run_dir.glob("hparams.yaml")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet: data or checkpoint may turn out not to fit."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and log the configuration of a fit; a test of the same run does not change it."""
        super().setup(trainer, pl_module, "fit")
        log_settings(trainer, all_settings(yaml.safe_load(self._text)), METRICS_BESIDE)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`, on process 0."""
        file = Path(trainer.default_root_dir) / "config.yaml"
        self._written = None if file.exists() else file
        with whole_file(file) as partial:
            self.parser.save(self.config, partial, skip_unset=False, overwrite=True, multifile=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        """Note that there is something to keep."""
        self._has_results = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to keep."""
        self._has_results = True

    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove what a command has written that fails before its first result.

        The writer of TensorBoard is closed first: a thread of it opens the log by name for each event that waits, and
        would write a removed one anew.
        """
        if self._has_results or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.finalize("failed")
        if self._written is not None:
            self._written.unlink(missing_ok=True)
        for log in set(self._logs(Path(trainer.default_root_dir))) - self._logs_before:
            log.unlink()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration into the checkpoint."""
        checkpoint[CONFIG_KEY] = self._text

    @cached_property
    def _text(self) -> str:
        """The configuration as YAML, made once.

        It takes longer than the rest of a small checkpoint, and leaves errors that jsonargparse has caught. These are
        in a cycle with their frames, which keep the checkpoint in memory until the garbage collector runs in full.
        """
        return str(self.parser.dump(self.config, skip_unset=False))
