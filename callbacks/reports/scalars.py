"""Log numbers, and the settings beside which TensorBoard shows them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from tailmatch.datamodules.class_names import printable


def log_scalars(trainer: Trainer, scalars: dict[str, float], step: int | None = None) -> None:
    """Log numbers at once with every logger of the run; Lightning's loggers write on process 0 only.

    Args:
        trainer: The trainer of the run, which has the loggers.
        scalars: The numbers by name. Bytes of a class name that are not UTF-8, which no logger takes, become escapes.
        step: The step that the numbers belong to. None: the trainer's `global_step`.
    """
    scalars = {printable(name): value for name, value in scalars.items()}
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step if step is None else step)


def log_settings(trainer: Trainer, settings: Mapping[str, str | int | float | bool], metrics: Sequence[str]) -> None:
    """Log the settings of a run with every logger, on process 0; TensorBoard shows them under HPARAMS.

    Lightning's logger of TensorBoard writes the metrics' values once more with the settings. Here it is told their
    names alone, and shows the newest values that the run has logged.

    Args:
        trainer: The trainer of the run, which has the loggers.
        settings: The settings by name.
        metrics: The names of the metrics that are shown beside the settings.
    """
    if not trainer.is_global_zero:
        return
    settings = {name: printable(value) if isinstance(value, str) else value for name, value in settings.items()}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings, {})  # for hparams.yaml
            summaries: Any = sys.modules[type(logger.experiment).__module__]  # tensorboard's, or tensorboardX's
            for summary in summaries.hparams(settings, dict.fromkeys(metrics, 0.0)):
                logger.experiment._get_file_writer().add_summary(summary)
        else:
            logger.log_hyperparams(settings)
