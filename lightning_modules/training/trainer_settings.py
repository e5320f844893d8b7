"""Settings of a trainer with which a fit would train nothing, or stop with an error of Lightning's inside."""

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count
from tailmatch.lightning_modules.training.length import epoch_batches


def check_trainer(trainer: Trainer) -> None:
    """Refuse settings with which nothing is trained, or that Lightning refuses only in the middle of the start.

    Raises:
        SettingsError: No step would be trained, an interval is below 1, a limit of the gradient is negative, the first
            validation lies beyond the end of an epoch, or a validation within an accumulated step; or a callback of
            Lightning cannot work with the methods.
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
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by its callback connector
        reason = next((reason for kind, reason in _REFUSED.items() if isinstance(callback, kind)), None)
        if reason is not None:
            raise SettingsError(f"{type(callback).__name__} does not work with the methods here: {reason}")
    _check_interval(trainer)
    _check_validations(trainer)


def check_precision(trainer: Trainer) -> None:
    """Refuse a precision in which the methods cannot compute, in training and evaluation.

    Raises:
        SettingsError: The weights would not be in single precision.
    """
    if trainer.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        mixed = trainer.precision.replace("true", "mixed") if trainer.precision.endswith("16-true") else "bf16-mixed"
        raise SettingsError(
            f"trainer.precision is {trainer.precision}, in which the methods cannot compute; it must be {mixed} or "
            "32-true"
        )
    if trainer.precision == "bf16-mixed" and trainer.strategy.root_device.type == "cpu" and not _cpu_computes_bf16():
        rank_zero_warn(
            "trainer.precision is bf16-mixed, and this CPU has no instructions for bfloat16: it may compute ten times "
            "slower than in 32-true"
        )


def _cpu_computes_bf16() -> bool:
    """Tell whether the CPU has instructions for bfloat16; True where torch does not know."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of torch have it
    return any(value for name, value in known.items() if "bf16" in name) or not any("bf16" in name for name in known)


_AVERAGES = "the weights that are evaluated are averages already, by model.ema_decay; leave it out"

_REFUSED: dict[type, str] = {
    LearningRateFinder: "it sets a field `lr`, which they do not have; compare runs with --model.optimizer.lr",
    BatchSizeFinder: "it sets a field `batch_size`, which the data does not have; set data.labeled_batch_size",
    GradientAccumulationScheduler: "schedules and warm-ups take their length from a constant "
    "trainer.accumulate_grad_batches; set that",
    StochasticWeightAveraging: _AVERAGES,
    WeightAveraging: _AVERAGES,
    ModelPruning: "weights are kept in channels-last memory format, which it cannot prune; leave it out",
    BackboneFinetuning: "it freezes a `backbone`, which they do not have; to train a head alone on trained features: "
    "--model ClassifierRetraining",
}
"""Callbacks of Lightning that would end in an error, or change something that nothing evaluates."""


def _check_interval(trainer: Trainer) -> None:
    interval, batches = trainer.val_check_interval, epoch_batches(trainer)
    if not isinstance(interval, int) or trainer.check_val_every_n_epoch is None or batches is None:
        return
    if not 0 < interval <= batches:
        raise SettingsError(
            f"trainer.val_check_interval is {interval}, and an epoch has {batches} steps; it must be from 1 to "
            f"{batches} (or set trainer.check_val_every_n_epoch to null, so that it counts the steps of all epochs)"
        )


def _check_validations(trainer: Trainer) -> None:
    """Refuse a validation within an accumulated step: its checkpoint would not have the gradient so far."""
    each, batches, interval = trainer.accumulate_grad_batches, epoch_batches(trainer), trainer.val_check_interval
    if each == 1 or batches is None:
        return
    every = interval if isinstance(interval, int) else max(1, int(batches * interval))
    over_epochs = trainer.check_val_every_n_epoch is None
    if (every % each and every != batches) or (over_epochs and batches % each):
        steps = f"{every} batches" + (f", over epochs of {batches}" if over_epochs else "")
        raise SettingsError(
            f"trainer.val_check_interval is {interval}, which is {steps}, and trainer.accumulate_grad_batches is "
            f"{each}: a validation would be within a step; make it a multiple"
        )
