"""Settings of a trainer with which a fit would train nothing, or stop with an error of Lightning's inside."""

from pytorch_lightning import Trainer

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count
from tailmatch.lightning_modules.training.length import epoch_batches


def check_trainer(trainer: Trainer) -> None:
    """Refuse settings with which nothing is trained, or that Lightning refuses only in the middle of the start.

    Raises:
        SettingsError: No step would be trained, an interval is below 1, a limit of the gradient is negative, or the
            first validation lies beyond the end of an epoch; or the weights would be in half precision.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        value = getattr(trainer, name)
        if value == 0:
            raise SettingsError(f"trainer.{name} is {value}, so that nothing would be trained; it must be above 0")
    check_count("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches)
    if trainer.check_val_every_n_epoch is not None:
        check_count("trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch)
    if trainer.gradient_clip_val is not None:
        check_at_least("trainer.gradient_clip_val", trainer.gradient_clip_val, 0)
    if trainer.precision in ("16-true", "bf16-true"):
        raise SettingsError(
            f"trainer.precision is {trainer.precision}, in which the methods cannot train; it must be "
            f"{trainer.precision.replace('true', 'mixed')} or 32-true"
        )
    _check_interval(trainer)


def _check_interval(trainer: Trainer) -> None:
    interval, batches = trainer.val_check_interval, epoch_batches(trainer)
    if not isinstance(interval, int) or trainer.check_val_every_n_epoch is None or batches is None:
        return
    if not 0 < interval <= batches:
        raise SettingsError(
            f"trainer.val_check_interval is {interval}, and an epoch has {batches} steps; it must be from 1 to "
            f"{batches} (or set trainer.check_val_every_n_epoch to null, so that it counts the steps of all epochs)"
        )
