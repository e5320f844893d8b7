"""The few steps that tell how long a training takes."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailmatch.command_line.step_times import SECONDS, STEPS, StepClock


@pytest.mark.parametrize(("seconds", "expected"), [(SECONDS / 10, 12), (10 * SECONDS, STEPS + 1)])
def test_the_training_ends_after_a_few_steps(seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(seconds * n for n in range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    trainer: Any = SimpleNamespace(should_stop=False, lightning_module=SimpleNamespace(device=torch.device("cpu")))
    clock, steps = StepClock(), 0
    clock.on_train_start(trainer)
    while not trainer.should_stop:
        clock.on_train_batch_end(trainer)
        steps += 1
    assert steps == pytest.approx(expected, abs=1) and clock.step == pytest.approx(seconds)
