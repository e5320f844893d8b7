"""A run that accumulates gradients is saved between its steps alone, and ends with the same bits after a resume."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, Trainer

from tailmatch.command_line.signals import SIGNALS, Stop
from tailmatch.command_line.stop_at_step_end import StopAtStepEnd
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.training.length import gradient_is_pending
from tests.contract import assert_same_training, at_epoch_ends, last, run, saved


class Ask(Callback):
    """A callback that asks the run to stop in its third batch, which is the first of the two of a step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        SIGNALS.received = 15 if batch_idx == 2 else SIGNALS.received


class Saves(Callback):
    """A callback that keeps whether a gradient was pending whenever the run was saved."""

    def __init__(self) -> None:
        self.pending: list[bool] = []

    def on_save_checkpoint(self, trainer: Trainer, *args: Any) -> None:
        self.pending.append(gradient_is_pending(trainer))


def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "limit_val_batches": 0}
    run(Supervised, tmp_path, at_epoch_ends(tmp_path / "whole"), **options)
    monkeypatch.setattr(SIGNALS, "received", None)
    monkeypatch.setattr(SIGNALS, "deferred", False)
    with pytest.raises(Stop):
        run(Supervised, tmp_path, Ask(), StopAtStepEnd(tmp_path / "last.ckpt"), **options)
    assert saved(tmp_path)["global_step"] == 2
    saves = Saves()
    every = last(tmp_path / "resumed", every_n_train_steps=1)
    trainer = run(Supervised, tmp_path, saves, every, ckpt=tmp_path / "last.ckpt", **options)
    assert saves.pending == [False] * (trainer.global_step - 2)
    assert_same_training(saved(tmp_path / "whole"), saved(tmp_path / "resumed"))
