"""Run a few steps of a configuration to see how long a training takes."""

import contextlib
import io
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.plan import EPOCHS, VALIDATING

STEPS = 3
"""How many steps are timed, after a first one."""


@dataclass(frozen=True)
class StepTimes:
    """How long the parts of a training take.

    Attributes:
        step: Seconds of a training step.
        validation: Seconds of a validation of all images; 0 without validation images.
    """

    step: float
    validation: float

    def steps_in(self, seconds: float) -> tuple[int, int]:
        """Choose the number of epochs, each with a validation, and the number of steps in all that fit in a time.

        Returns:
            The epochs and the steps, a multiple of the epochs. One step is the least, even where it takes longer.
        """
        affordable = VALIDATING * seconds / self.validation if self.validation else EPOCHS
        epochs = max(1, min(EPOCHS, int(affordable), int(seconds / (self.step + self.validation))))
        per_epoch = int((seconds / epochs - self.validation) / self.step)
        return epochs, epochs * max(1, per_epoch)


class StepClock(Callback):
    """Times training steps and validation batches, with all work of the device done."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.batches: list[float] = []
        self._begun = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin a step; the loading of its batch is not in it, since it is small."""
        self._begin(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End a step."""
        self.steps.append(self._elapsed(trainer))

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin a batch."""
        self._begin(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End a batch."""
        self.batches.append(self._elapsed(trainer))

    def _begin(self, trainer: Trainer) -> None:
        _wait(trainer.lightning_module)
        self._begun = time.perf_counter()

    def _elapsed(self, trainer: Trainer) -> float:
        _wait(trainer.lightning_module)
        return time.perf_counter() - self._begun


def _wait(module: LightningModule) -> None:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)


def time_steps(config: Path) -> StepTimes:
    """Train a configuration for a few steps in a folder that is removed, and validate one batch.

    Args:
        config: The YAML file of a training.

    Raises:
        SettingsError: The settings are wrong, such as weights that cannot be fetched.
        OutOfMemoryError: The device has too little memory for a step.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        cli = TailmatchCLI(
            [
                "fit",
                *("--config", str(config), "--run_dir", f"{folder}/run"),
                *("--data.steps_per_epoch", str(1 + STEPS), "--trainer.max_epochs", "1"),
                *("--trainer.limit_val_batches", "2", "--trainer.logger", "false"),
                *("--trainer.enable_checkpointing", "false", "--trainer.enable_progress_bar", "false"),
                *("--trainer.callbacks+", "tailmatch.command_line.step_times.StepClock"),
            ]
        )
        trainer: Any = cli.trainer
        clock = next(callback for callback in trainer.callbacks if isinstance(callback, StepClock))
        images = cli.datamodule.val
        batches = 0 if images is None else math.ceil(len(images) / cli.datamodule.eval_batch_size)
    return StepTimes(
        step=sum(clock.steps[1:]) / STEPS,
        validation=batches * clock.batches[-1] if batches else 0.0,
    )


_CHATTY = ("pytorch_lightning", "lightning_fabric", "lightning.fabric", "huggingface_hub")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the short training says from the terminal; its errors are raised."""
    loggers = {name: logging.getLogger(name) for name in _CHATTY}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            loggers[name].setLevel(level)
