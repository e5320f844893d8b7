"""Log numbers."""

from pytorch_lightning import Trainer

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
