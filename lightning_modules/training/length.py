"""The length of a training before it begins, from the trainer's limits and the data module's `steps_per_epoch`.

The limits are those of `Trainer`: `max_steps`, `max_epochs` (which Lightning sets to 1000 if neither is given, and to
-1, which means none, if only `max_steps` or `max_time` is), `limit_train_batches`, `overfit_batches`, `fast_dev_run`
and `accumulate_grad_batches`. (Lightning's `estimated_stepping_batches` builds the loaders, too early for an exact
resume.)

A training that `max_time` or a callback ends may be shorter: that is not known beforehand, and not considered here.
"""

import math

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer

from tailmatch.datamodules.arguments import SettingsError


def epoch_batches(trainer: Trainer) -> int | None:
    """Return the training batches of an epoch; None without a data module that has `steps_per_epoch`."""
    batches: int | None = getattr(getattr(trainer, "datamodule", None), "steps_per_epoch", None)
    if batches is None:
        return None
    limit = trainer.limit_train_batches  # an int is a number of batches, a float a share: 1 is not 1.0
    return min(batches, limit if isinstance(limit, int) else int(batches * limit))


def epoch_steps(trainer: Trainer) -> int | None:
    """Return the optimizer steps of an epoch; None without a data module that has `steps_per_epoch`.

    The last batch of an epoch always steps, so accumulation never extends into the next epoch.
    """
    batches = epoch_batches(trainer)
    return None if batches is None else math.ceil(batches / trainer.accumulate_grad_batches)


def total_steps(trainer: Trainer) -> float:
    """Return the optimizer steps of the whole training, by the limit that comes first; infinite without one."""
    steps, epochs = epoch_steps(trainer), _maximum(trainer.max_epochs)
    by_epochs = math.inf if steps is None or epochs == math.inf else epochs * steps
    return min(_maximum(trainer.max_steps), by_epochs)


def total_batches(trainer: Trainer) -> float:
    """Return the batches of the whole training, as `total_steps` counts steps; more where gradients are accumulated."""
    steps, per_epoch = total_steps(trainer), epoch_steps(trainer)
    if steps == math.inf or not per_epoch:
        return steps * trainer.accumulate_grad_batches
    epochs, rest = divmod(int(steps), per_epoch)
    batches = epoch_batches(trainer) or 0
    return epochs * batches + min(rest * trainer.accumulate_grad_batches, batches)


def total_epochs(trainer: Trainer) -> float:
    """Return the epochs that the training begins, by the limit that comes first; infinite without one."""
    steps, most = epoch_steps(trainer), _maximum(trainer.max_steps)
    by_steps = math.inf if not steps or most == math.inf else math.ceil(most / steps)
    return min(_maximum(trainer.max_epochs), by_steps)


def steps_to_validation(trainer: Trainer) -> int | None:
    """Return the optimizer steps before the first validation; None without a data module that has `steps_per_epoch`."""
    batches, steps = epoch_batches(trainer), epoch_steps(trainer)
    if batches is None or steps is None or not isinstance(trainer.val_check_interval, int | float):
        return None
    interval, between = trainer.val_check_interval, trainer.check_val_every_n_epoch
    within = interval if isinstance(interval, int) else max(1, int(batches * interval))
    return math.ceil(within / trainer.accumulate_grad_batches) + ((between or 1) - 1) * steps


def progress(trainer: Trainer) -> float:
    """Return the share of the training's optimizer steps that is done, in [0, 1].

    Raises:
        SettingsError: The trainer sets no end.
    """
    steps = total_steps(trainer)
    if steps == math.inf:
        raise SettingsError(
            f"the share of the training that is done is not known: trainer.max_steps is {trainer.max_steps} and "
            f"trainer.max_epochs {trainer.max_epochs}; set one of them"
        )
    return min(1.0, trainer.global_step / steps)


def check_reached(trainer: Trainer, name: str, steps: int, what: str) -> None:
    """Refuse a warm-up that lasts as long as the training, so that what follows it would never begin.

    Args:
        trainer: Trainer of the fit.
        name: Name of the argument, for the message.
        steps: Number of optimizer steps of the warm-up.
        what: What follows the warm-up.

    Raises:
        SettingsError: The training has no step after the warm-up.
    """
    total = total_steps(trainer)
    if steps >= total:
        raise SettingsError(
            f"{what} would never begin: {name} is {steps} and the training has {total:g} steps; lower it, or train "
            "longer"
        )


def warn_unless_reached(trainer: Trainer, name: str, batches: int, what: str) -> None:
    """Warn of an interval that the training does not complete, so that nothing would follow from it.

    Args:
        trainer: Trainer of the fit.
        name: Name of the argument, for the message.
        batches: Number of batches before the end of the first interval.
        what: What follows from it.
    """
    total = total_batches(trainer)
    if batches >= total:
        rank_zero_warn(f"{what} will never change: {name} is {batches}, and the training has {total:g} steps; lower it")


def gradient_is_pending(trainer: Trainer) -> bool:
    """Tell whether the present batch only adds to the gradient of a later step, so that no checkpoint may be saved."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_epoch(trainer: Trainer) -> bool:
    """Return whether the present epoch is the last, as far as that is known beforehand."""
    return trainer.current_epoch + 1 >= total_epochs(trainer)


def _maximum(limit: int | None) -> float:
    return math.inf if limit is None or limit < 0 else limit
