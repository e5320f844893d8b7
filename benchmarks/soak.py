"""Kill many trainings and compare how they end, or watch what a long training takes of the machine.

    python -m benchmarks.soak [--kills 30] [--methods FixMatch MixMatch] [--seed 0]
    python -m benchmarks.soak --steps 20000

With `--kills`, small trainings of each method, alone and with each remedy (those of `tests/contract.py`), are killed by
SIGKILL, three times each, about half of the times inside the write of a checkpoint, and go on from `last.ckpt`. They
train in turn without loader processes, with two of them, and on two processes. At the end, all tensors and metrics must
be those of a training that was not killed. The line of a method has the numbers of kills and of trainings, and how many
of these ended alike.

With `--steps`, the demo (FixMatch with DARP, its validation, reports, checkpoints and TensorBoard) trains with smaller
batches for that many steps. Each hundred steps, its memory, open files, threads and processor time are noted, the size
of `last.ckpt`, and by how much TensorBoard's file grew. After the first twentieth, which fills caches, they must stay
flat. Each line has the means of the first and of the last quarter, and the slope over 1,000 steps. The memory is that
of the process alone, without the pages of libraries, which the system drops and reads again as it likes. The exit code
is 1 if a training ended otherwise or a figure rose.
"""

import argparse
import csv
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.cli import main as tailmatch
from tests.contract import METHODS, NO_REMEDY, Case, pairs
from tests.kills import KILLED, Training, assert_same_end, draw_moments, outlive

KILLS = 3
"""Kills of a training: more would not all come before its last step."""

MODES = {"no loader processes": (0, 1), "2 loader processes": (2, 1), "2 processes": (0, 2)}
EVERY = 100
"""Steps between two notes of `Gauge`."""

FIGURES = {
    "memory (MB)": 1.02,
    "open files": 1.05,  # of about ten; a single file that is open while a note is made is less
    "threads": 1.05,
    "processor time of a step (ms)": 1.1,
    "last checkpoint (kB)": 1.01,
    "events of a step (bytes)": 1.1,
}
"""Figure to the largest ratio of its last quarter to its first one that counts as flat."""


class Gauge(Callback):
    """A callback that notes every `EVERY` steps, in `gauge.csv` of the run folder, what the process takes."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file."""
        self.folder = Path(trainer.default_root_dir)
        self.file = self.folder / "gauge.csv"
        self.file.write_text("step," + ",".join(FIGURES) + "\n")
        self.time, self.events = time.process_time(), self._logged(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Add a line."""
        if trainer.global_step % EVERY:
            return
        now, events = time.process_time(), self._logged(trainer)
        figures = [
            own_memory(),
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            1000 * (now - self.time) / EVERY,
            (self.folder / "checkpoints" / "last.ckpt").stat().st_size / 1e3,
            (events - self.events) / EVERY,
        ]
        with self.file.open("a") as file:
            file.write(f"{trainer.global_step}," + ",".join(map(str, figures)) + "\n")
        self.time, self.events = time.process_time(), events

    def _logged(self, trainer: Trainer) -> int:
        """Return the bytes of TensorBoard's files, with what is still in its queue."""
        trainer.logger.experiment.flush()  # type: ignore[union-attr]  # the demo has TensorBoard
        return sum(file.stat().st_size for file in self.folder.glob("events.*"))


def own_memory() -> float:
    """Return the memory of this process in MB, without the pages of files."""
    [kilobytes] = re.findall(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024 / 1e6


def long_training(steps: int) -> bool:
    """Train the demo for some steps and print its figures; return whether they stayed flat."""
    with tempfile.TemporaryDirectory() as folder:
        small = ["--data.labeled_batch_size=4", "--data.unlabeled_ratio=2"]
        limits = ["--trainer.max_epochs=-1", f"--trainer.max_steps={steps}", "--trainer.enable_progress_bar=false"]
        more = ["--checkpoint.last_every_n_steps=50", "--trainer.callbacks+=benchmarks.soak.Gauge"]
        tailmatch(["fit", "--config=demo.yaml", f"--run_dir={folder}/run", *small, *limits, *more])
        with (Path(folder) / "run" / "gauge.csv").open() as file:
            rows = list(csv.DictReader(file))
    rows = rows[len(rows) // 20 :]
    step = np.array([float(row["step"]) for row in rows])
    flat = True
    for name, most in FIGURES.items():
        values = np.array([float(row[name]) for row in rows])
        quarter = max(1, len(values) // 4)
        first, last = values[:quarter].mean(), values[-quarter:].mean()
        flat &= last <= most * first
        slope = 1000 * np.polyfit(step, values, 1)[0]
        print(f"{name}: {first:.2f} at first, {last:.2f} at last, {slope:+.3f} over 1,000 steps", flush=True)
    return flat


def killed_trainings(case: Case, kills: int, seed: int) -> bool:
    """Kill trainings of a method and print how many ended alike; return whether all did."""
    inside = alike = trainings = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = {}
        for processes in (1, 2):
            whole[processes] = Training(case, Path(folder) / f"whole-{processes}", processes=processes)
            if outlive(whole[processes], []) != [0]:
                return False
        for number in range(-(-kills // KILLS)):
            mode = list(MODES)[number % len(MODES)]
            workers, processes = MODES[mode]
            moments = draw_moments(seed + number, KILLS, processes)
            training = Training(case, Path(folder) / f"killed-{number}", [workers], processes)
            codes = outlive(training, moments)
            trainings += 1
            inside += sum(moment.written is not None for moment in moments)
            try:
                assert codes == [KILLED] * KILLS + [0], f"exit codes {codes}"
                assert_same_end(whole[processes], training)
                alike += 1
            except AssertionError as error:
                print(f"{case}, {mode}, seed {seed + number}, {moments}: {error}", flush=True)
    name = case[0].__name__ + ("" if case[1] == NO_REMEDY else f" + {case[1]}")
    print(f"{name}: {trainings * KILLS} kills, {inside} inside a write; {alike} of {trainings} ended alike", flush=True)
    return alike == trainings


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {method.__name__: method for method in METHODS}
    parser.add_argument("--kills", type=int, default=30, help="kills of each method (default: 30)")
    parser.add_argument("--methods", nargs="+", choices=names, default=list(names), help="methods to kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments at which is killed (default: 0)")
    parser.add_argument("--steps", type=int, help="train for so many steps, and kill nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.steps:
        return 0 if long_training(asked.steps) else 1
    cases = [(method, NO_REMEDY) for method in METHODS] + pairs()
    cases = [case for case in cases if case[0].__name__ in asked.methods]
    return 0 if all([killed_trainings(case, asked.kills, asked.seed) for case in cases]) else 1


if __name__ == "__main__":
    sys.exit(main())
