"""Save the configuration of a run in its folder and in its checkpoints."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import CONFIG_KEY


class RunConfig(SaveConfigCallback):
    """A callback that saves the configuration of a fit as `config.yaml` and in every checkpoint."""

    _written: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration of a fit; a test of the same run does not change it."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`, on process 0."""
        file = Path(trainer.default_root_dir) / "config.yaml"
        self._written = None if file.exists() else file
        with whole_file(file) as partial:
            self.parser.save(self.config, partial, skip_unset=False, overwrite=True, multifile=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove `config.yaml` if the run failed before its first step, so that the next run can use the folder."""
        if self._written is not None and trainer.global_step == 0:
            self._written.unlink(missing_ok=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration into the checkpoint."""
        checkpoint[CONFIG_KEY] = self.parser.dump(self.config, skip_unset=False)
