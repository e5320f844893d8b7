"""Run a few steps of a configuration to see how long a training takes."""

import contextlib
import io
import itertools
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.plan import EPOCHS, VALIDATING
from tailmatch.lightning_modules.training.length import total_epochs, total_steps

STEPS, SECONDS = 3, 1.0
"""How many steps are timed at least, after a first one, and for how long if they are short."""


@dataclass(frozen=True)
class StepTimes:
    """How long the parts of a training take.

    Attributes:
        step: Seconds of a training step.
        validation: Seconds of a validation of all images; 0 without validation images.
        steps: The steps of the whole training; infinite if nothing but time limits it.
        epochs: The epochs of the whole training, each with a validation; infinite in the same case.
    """

    step: float
    validation: float
    steps: float = math.inf
    epochs: float = math.inf

    @property
    def training(self) -> float:
        """Seconds of the whole training, validations included; infinite if its length is not known."""
        return self.steps * self.step + (self.epochs * self.validation if self.validation else 0.0)

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
    """Times a few training steps, which then end, and validation batches, with all work of the device done."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.batches: list[float] = []
        self._begun, self._steps = 0.0, 0

    @property
    def step(self) -> float:
        """Seconds of a step, from the end of the one before: loading and views are in it."""
        return statistics.median(after - before for before, after in itertools.pairwise(self.ends))

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Note when the first step begins, which counts if it is the only one."""
        self.ends, self._steps = [time.perf_counter()], 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End a step, and the training after the last one that is timed."""
        _wait(trainer.lightning_module)
        self.ends.append(time.perf_counter())
        self._steps += 1
        if self._steps == 2:
            del self.ends[0]  # the first step is slower than the others
        trainer.should_stop = len(self.ends) > STEPS and self.ends[-1] - self.ends[0] > SECONDS

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


def time_steps(words: Sequence[str]) -> StepTimes:
    """Train for a few steps in a folder that is removed, and validate one batch.

    Args:
        words: Settings of a training, as on the command line of `tailmatch fit`; without `--run_dir`.

    Raises:
        SettingsError: The settings are wrong, such as weights that cannot be fetched.
        OutOfMemoryError: The device has too little memory for a step.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        cli = TailmatchCLI(
            [
                *("fit", *words, "--run_dir", f"{folder}/run"),
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
        step=clock.step,
        validation=batches * clock.batches[-1] if clock.batches else 0.0,
        steps=total_steps(trainer),
        epochs=total_epochs(trainer),
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
