"""The folder for a run's files."""

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger


def run_folder(trainer: Trainer) -> Path:
    """Return the folder for a run's files: that of its logs if they are local, else `default_root_dir`."""
    logger = trainer.logger
    return Path(logger.log_dir if isinstance(logger, TensorBoardLogger | CSVLogger) else trainer.default_root_dir)
