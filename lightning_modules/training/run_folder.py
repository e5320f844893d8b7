"""The folder for a run's files."""

from pathlib import Path
from weakref import WeakKeyDictionary

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

_CHOSEN: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()


def choose_run_folder(trainer: Trainer, folder: Path) -> None:
    """Let a trainer's run have its files in a folder, wherever its loggers write."""
    _CHOSEN[trainer] = folder


def run_folder(trainer: Trainer) -> Path:
    """Return the folder for a run's files: the chosen one, else that of its local logs, else `default_root_dir`."""
    if trainer in _CHOSEN:
        return _CHOSEN[trainer]
    logger = trainer.logger
    return Path(logger.log_dir if isinstance(logger, TensorBoardLogger | CSVLogger) else trainer.default_root_dir)
