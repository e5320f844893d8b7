"""Numbers on their way to the logger."""

from pytorch_lightning import Trainer


def log_scalars(trainer: Trainer, scalars: dict[str, float], step: int | None = None) -> None:
    """Give numbers to every logger of the run at once; Lightning's loggers write on rank zero alone.

    Args:
        trainer: Its loggers.
        scalars: Names to numbers.
        step: Optimizer steps done; None are those of the trainer.
    """
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step if step is None else step)
