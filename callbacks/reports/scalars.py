"""Numbers on their way to the logger."""

from pytorch_lightning import Trainer


def log_scalars(trainer: Trainer, scalars: dict[str, float], step: int | None = None) -> None:
    """Give numbers to every logger of the run at once; Lightning's loggers write on rank zero alone.

    Args:
        trainer: The run's trainer, which has the loggers.
        scalars: Numbers by their names.
        step: The step they belong to; None is the trainer's `global_step`.
    """
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step if step is None else step)
