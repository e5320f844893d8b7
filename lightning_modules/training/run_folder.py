"""Where the files of a run go."""

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger


def run_folder(trainer: Trainer) -> Path:
    """Where a run's files go: the folder of its logs, if they are local files, else `default_root_dir`."""
    logger = trainer.logger
    return Path(logger.log_dir if isinstance(logger, TensorBoardLogger | CSVLogger) else trainer.default_root_dir)
