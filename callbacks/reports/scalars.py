"""Log numbers."""

from pytorch_lightning import Trainer


def log_scalars(trainer: Trainer, scalars: dict[str, float], step: int | None = None) -> None:
    """Log numbers at once with every logger of the run; Lightning's loggers write on process 0 only.

    Args:
        trainer: The trainer of the run, which has the loggers.
        scalars: The numbers by name.
        step: The step that the numbers belong to. None: the trainer's `global_step`.
    """
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step if step is None else step)
