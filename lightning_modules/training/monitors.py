"""Metrics that a training is asked to watch: names that nothing logs are found before it begins."""

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.training.length import epoch_steps

_KNOWN_PACKAGES = ("tailmatch", "pytorch_lightning", "lightning")


def check_monitors(trainer: Trainer, module: LightningModule, metrics: Collection[str]) -> None:
    """Refuse callbacks that watch a metric which no validation logs, or a training number that no epoch logs in time.

    Other names than those of `metrics` are accepted if the method or a callback is the user's, since it may log them.

    Args:
        trainer: The trainer of a fit.
        module: The method that is trained.
        metrics: Names of the metrics that a validation logs, such as `val/top1`.

    Raises:
        SettingsError: A metric is not logged; or `EarlyStopping` takes the smallest value of one whose largest is best.
    """
    for callback, monitor in _monitors(trainer):
        if monitor.startswith("train/"):
            _check_interval(trainer, _setting_of(callback), monitor)
        else:
            check_monitor(trainer, module, metrics, _setting_of(callback), monitor)
        if isinstance(callback, EarlyStopping) and monitor in metrics and monitor != "val/loss":
            if callback.mode == "min":
                raise SettingsError(
                    f"EarlyStopping.mode is min, so that the training would end as {monitor} grows; it must be max"
                )


def check_training_monitors(trainer: Trainer, module: LightningModule, names: Collection[str]) -> None:
    """Refuse callbacks that watch a training number which the steps do not have, at the first step.

    Args:
        trainer: The trainer of a fit.
        module: The method that is trained.
        names: Names of the training numbers, such as `train/loss`.

    Raises:
        SettingsError: A training number is not logged.
    """
    for callback, monitor in _monitors(trainer):
        if monitor.startswith("train/"):
            check_monitor(trainer, module, names, _setting_of(callback), monitor)


def check_monitor(
    trainer: Trainer, module: LightningModule, names: Collection[str], setting: str, monitor: str
) -> None:
    """Refuse one name that nothing logs.

    Args:
        trainer: The trainer of a fit.
        module: The method that is trained.
        names: Names of what is logged.
        setting: The setting with the name, and a verb, for the message.
        monitor: The name.

    Raises:
        SettingsError: The name is none of them.
    """
    if monitor not in names and not _may_log(trainer, module):
        near = difflib.get_close_matches(monitor, names, n=1)
        raise SettingsError(
            f"{setting} {monitor!r}, which nothing logs; there are {', '.join(names)}"
            + (f"\n  Did you mean: {near[0]}?" if near else "")
        )


def _monitors(trainer: Trainer) -> Iterator[tuple[Any, str]]:
    """Yield each callback that watches a metric, and its name."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by its callback connector
    for callback in callbacks:
        lenient = isinstance(callback, EarlyStopping) and not callback.strict
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and callback.monitor is not None and not lenient:
            yield callback, callback.monitor


def _setting_of(callback: Any) -> str:
    return getattr(callback, "setting", f"{type(callback).__name__}.monitor is")


def _may_log(trainer: Trainer, module: LightningModule) -> bool:
    """Tell whether the method or a callback is of another package, and may log anything."""
    members = (module, *trainer.callbacks)  # type: ignore[attr-defined]
    return any(type(each).__module__.split(".")[0] not in _KNOWN_PACKAGES for each in members)


def _check_interval(trainer: Trainer, setting: str, monitor: str) -> None:
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its logger connector
    steps = epoch_steps(trainer)
    if not every or (steps is not None and every > steps):
        raise SettingsError(
            f"{setting} {monitor!r}, which no epoch would log in time: trainer.log_every_n_steps is {every}, and an "
            f"epoch has {steps} steps"
        )
