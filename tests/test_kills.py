"""Test that a run which is killed again and again, also while it writes, ends as one that is not."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch

from tailmatch.lightning_modules import DyTrim, MoCoPretraining, SelfTraining
from tests.contract import COMMON, METHODS, NO_REMEDY, Case, assert_same, each, pairs
from tests.kills import KILLED, Fit, Moment, Training, assert_same_end, draw_moments, outlive

KILLS = 3
CASES = [*((method, NO_REMEDY) for method in METHODS), *{remedy: (m, remedy) for m, remedy in pairs()}.values()]
MODES = {"one process": ([0, 2], 1), "2 processes": ([0], 2)}
"""The numbers of loader processes, in turn, and of training processes."""

KILLED_CASES = [
    *((*case, "one process") for case in CASES),
    *((*case, "2 processes") for case in CASES[::2]),  # `test_two_processes` resumes every method on two
]


def is_exhaustive(method: Any, more: Sequence[str]) -> bool:
    """Tell whether `make test` leaves a case out: it kills each remedy, and methods that have states of other kinds."""
    remedy, mode = more
    return mode == "2 processes" or (remedy == NO_REMEDY and method not in (*COMMON, MoCoPretraining, SelfTraining))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that gives the folder of a run that is not killed; each is run once."""

    @cache
    def made(case: Case, processes: int) -> Training:
        training = Training(case, tmp_path_factory.mktemp("whole") / "run", processes=processes)
        assert outlive(training, []) == [0]
        return training

    return made


@pytest.mark.parametrize(("method", "remedy", "mode"), each(KILLED_CASES, is_exhaustive))
def test_a_run_outlives_kills_with_the_same_bits(
    method: Any, remedy: str, mode: str, whole: Any, tmp_path: Path
) -> None:
    workers, processes = MODES[mode]
    seed = crc32(f"{method.__name__} {remedy} {mode}".encode())
    moments = draw_moments(seed, KILLS, processes)
    print(f"seed {seed}: {moments}")
    training = Training((method, remedy), tmp_path / "run", workers, processes)
    assert outlive(training, moments) == [KILLED] * KILLS + [0]
    assert_same_end(whole((method, remedy), processes), training)


def test_two_processes_continue_after_a_validation_with_the_statistics_of_the_first(whole: Any, tmp_path: Path) -> None:
    case = (DyTrim, NO_REMEDY)  # reads the running statistics of BatchNorm in a step, by CDMAD
    training = Training(case, tmp_path / "run", processes=2)
    assert outlive(training, [Moment(5, written=0.5)]) == [KILLED, 0]  # goes on from the end of the first epoch
    assert_same_end(whole(case, 2), training)


SMALL = [
    "--data=Digits", "--data.image_size=8", "--data.labeled_batch_size=6", "--data.unlabeled_ratio=2",
    "--data.steps_per_epoch=4", "--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=2",
    "--trainer.enable_progress_bar=false", "--model=FixMatch", "--model.network=CifarResNet", "--model.network.depth=8",
    "--checkpoint.last_every_n_steps=1", "--config=callbacks/darp.yaml", "--trainer.callbacks.warmup_epochs=1",
]  # fmt: skip


def test_a_run_of_the_command_line_outlives_kills(tmp_path: Path) -> None:
    moments = [Moment(1, written=0.5), Moment(3, written=0.1), Moment(2, written=1.0), Moment(2, seconds=0.01)]
    whole, killed = Fit(tmp_path / "whole", SMALL), Fit(tmp_path / "killed", SMALL)
    assert outlive(whole, []) == [0] and outlive(killed, moments) == [KILLED] * 4 + [0]
    for name in ("last", "best"):
        files = [fit.folder / "run" / "checkpoints" / f"{name}.ckpt" for fit in (whole, killed)]
        states = [torch.load(file, weights_only=True) for file in files]
        for part in ("state_dict", "trained_weights", "optimizer_states", "lr_schedulers", "global_step"):
            assert_same(states[0][part], states[1][part], f"{name} {part}")
        assert_same(*(state["callbacks"]["DARP"] for state in states), "DARP")
    tests = [json.loads((fit.folder / "run" / "test_metrics.json").read_text()) for fit in (whole, killed)]
    assert tests[0]["metrics"] == tests[1]["metrics"]
