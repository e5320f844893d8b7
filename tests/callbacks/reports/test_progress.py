"""How far a run is: plain lines outside of a terminal, and a bar that counts epochs from 1 in one."""

import itertools
import re
from typing import Any

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from rich.console import Console

from tailmatch.callbacks.reports import progress
from tailmatch.callbacks.reports.progress import DurationReport, LineProgress, TerminalProgress, progress_report


class Logging(BoringModel):
    """A module that shows a number in the progress bar."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Log and print a number."""
        self.print("said by the module")
        self.log("train/loss", 0.5, prog_bar=True)
        return super().training_step(batch, batch_idx)


def trainer(report: Any, **limits: Any) -> Trainer:
    """Make a trainer for the CPU that shows its progress by `report`."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=1, callbacks=report, **quiet, **limits)


def test_lines_say_step_epoch_speed_time_left_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    fitting = trainer(LineProgress(seconds=0), max_steps=3, limit_train_batches=2, limit_val_batches=0)
    fitting.fit(Logging())
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("step")]
    assert out.count("said by the module") == 3
    assert [re.sub(r"[\d.,]+ a second", "N a second", line) for line in lines] == [
        "step 1 of 3, epoch 1, N a second, 0:00:00 left, train/loss 0.500",
        "step 2 of 3, epoch 1, N a second, 0:00:00 left, train/loss 0.500",
        "step 3 of 3, epoch 2, N a second, 0:00:00 left, train/loss 0.500",
    ]
    fitting.limit_test_batches = 2
    fitting.test(Logging(), verbose=False)
    assert re.fullmatch(r"test batch 1 of 2, .* left\ntest batch 2 of 2, .*", capsys.readouterr().out.strip())


def test_no_line_comes_before_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(LineProgress(), max_steps=3, limit_val_batches=0).fit(Logging())
    assert "step" not in capsys.readouterr().out


def test_a_line_says_after_the_first_steps_how_long_the_fit_will_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 2)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    trainer(DurationReport(), max_steps=40, limit_val_batches=0, enable_progress_bar=False).fit(Logging())
    assert capsys.readouterr().out.count("about 0:01:12 for 36 more steps, 0.5 a second, and the validations") == 1
    trainer(DurationReport(), max_steps=20, limit_val_batches=0, enable_progress_bar=False).fit(Logging())
    assert "about" not in capsys.readouterr().out  # less than a minute


def test_durations_have_days() -> None:
    assert [progress._duration(seconds) for seconds in (0.6, 3661, 200_000)] == ["0:00:01", "1:01:01", "2 d 7:33:20"]


@pytest.mark.parametrize(("terminal", "kind"), [(True, TerminalProgress), (False, LineProgress)])
def test_a_terminal_gets_a_bar(terminal: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "Console", lambda: Console(force_terminal=terminal))
    assert isinstance(progress_report(), kind)


@pytest.mark.parametrize(("limits", "name"), [({"max_epochs": 2}, "epoch 2 of 2"), ({"max_steps": 2}, "epoch 2")])
def test_the_bar_counts_from_1(limits: dict[str, int], name: str) -> None:
    bar = TerminalProgress()
    fitting = trainer(bar, limit_train_batches=1, limit_val_batches=0, **limits)
    fitting.fit(Logging())
    assert bar.progress is not None
    assert [task.description.strip() for task in bar.progress.tasks] == [name]
