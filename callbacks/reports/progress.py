"""Show how far a run is: as a bar in a terminal, as plain lines anywhere else, such as in the log of a batch job."""

import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from rich.console import Console

from tailmatch.lightning_modules.training.length import total_epochs, total_steps


def progress_report() -> ProgressBar:
    """Create the progress display for where the output goes to: a terminal or notebook, or anything else."""
    console = Console()
    return TerminalProgress() if console.is_terminal or console.is_jupyter else LineProgress()


class TerminalProgress(RichProgressBar):
    """Lightning's progress bar, with epochs that count from 1, and numbers that are read once a second.

    Lightning reads the numbers after every step, and waits for the device each time.
    """

    sanity_check_description = "check"
    validation_description = "validation"
    test_description = "test"
    predict_description = "prediction"

    def __init__(self) -> None:
        super().__init__()
        self._read_at = 0.0

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{_epoch(self.trainer, current_epoch):{len(self.validation_description)}}"

    def _update_metrics(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        if now - self._read_at >= 1 or not trainer.training:
            self._read_at = now
            super()._update_metrics(trainer, pl_module)


class LineProgress(ProgressBar):
    """A line a minute: step, epoch, speed, time left, and the numbers that a progress bar shows.

    Args:
        seconds: The least number of seconds between two lines.
    """

    def __init__(self, seconds: float = 60) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._begin(0)

    @property
    def is_enabled(self) -> bool:
        """Whether it prints, which `LightningModule.print` asks."""
        return self._enabled

    def disable(self) -> None:
        """Print nothing, as on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure the speed."""
        self._begin(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        """Print a line of the training, if it is time."""
        if self._is_due():
            done, total = trainer.global_step, total_steps(trainer)
            numbers = self.get_metrics(trainer, pl_module)
            self._print("step", done, total, numbers, _epoch(trainer, trainer.current_epoch))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure the speed."""
        self._begin(0)

    on_predict_start = on_test_start

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        """Print a line of the test, if it is time."""
        self._count("test batch", sum(trainer.num_test_batches))

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        """Print a line of the prediction, if it is time."""
        self._count("batch", sum(trainer.num_predict_batches))

    def _count(self, unit: str, total: float) -> None:
        self._batches += 1
        if self._is_due():
            self._print(unit, self._batches, total)

    def _begin(self, done: int) -> None:
        self._started = self._last = time.monotonic()
        self._before, self._batches = done, 0

    def _is_due(self) -> bool:
        return self._enabled and time.monotonic() - self._last >= self.seconds

    def _print(
        self, unit: str, done: int, total: float, numbers: Mapping[str, object] | None = None, epoch: str = ""
    ) -> None:
        self._last = time.monotonic()
        speed = (done - self._before) / (self._last - self._started)
        known = total < float("inf")
        parts = [f"{unit} {done:,} of {total:,.0f}" if known else f"{unit} {done:,}", epoch]
        parts.append(f"{speed:.3g} a second" if speed < 1000 else f"{speed:,.0f} a second")
        if known and speed > 0:
            parts.append(f"{_duration((total - done) / speed)} left")
        parts += [f"{name} {value:.3f}" for name, value in (numbers or {}).items() if isinstance(value, float)]
        print(", ".join(part for part in parts if part), flush=True)


class DurationReport(Callback):
    """One line that says how long a fit will take, from its first steps; none for one of less than a minute.

    The first step is left out, since it takes longer than others. Validations are not in the estimate. The device is
    not waited for: over the seconds that are measured, it cannot fall far behind.

    Args:
        seconds: The least number of seconds that are measured.
        steps: The least number of steps that are measured.
    """

    def __init__(self, seconds: float = 5, steps: int = 3) -> None:
        self.seconds = seconds
        self.steps = steps
        self._first: tuple[float, int] | None = None
        self._is_done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure."""
        self._first, self._is_done = None, not trainer.is_global_zero

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        """Print the line as soon as enough steps are measured."""
        if self._is_done:
            return
        now, done = time.monotonic(), trainer.global_step
        if self._first is None:
            self._first = now, done
        seconds, steps = now - self._first[0], done - self._first[1]
        if seconds < self.seconds or steps < self.steps:
            return
        self._is_done = True
        left = (total_steps(trainer) - done) * seconds / steps
        if 60 <= left < float("inf"):
            print(
                f"about {_duration(left)} for {total_steps(trainer) - done:,.0f} more steps, {steps / seconds:.3g} a "
                "second, and the validations",
                flush=True,
            )


def _epoch(trainer: Trainer, epoch: int) -> str:
    """Name an epoch, and how many there are, if that is known."""
    total = total_epochs(trainer)
    return f"epoch {epoch + 1:,} of {total:,.0f}" if total < float("inf") else f"epoch {epoch + 1:,}"


def _duration(seconds: float) -> str:
    """Write a duration as hours, minutes and seconds, with days before them if there are any."""
    days, rest = divmod(round(seconds), 24 * 3600)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
