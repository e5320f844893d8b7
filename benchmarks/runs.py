"""Runs of a table: each is a `tailmatch fit` with a folder of its own, is done once, and continues where it stopped."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml


def folder_of(runs: Path, *words: object) -> Path:
    """Name the folder of a run by what it is."""
    return runs / "-".join("".join(letter if letter.isalnum() else "_" for letter in str(word)) for word in words)


def tailmatch(folder: Path, *words: str) -> int:
    """Run a command in a process of its own, with its output in a log beside the run's folder; return its exit code."""
    environment = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **os.environ}
    with folder.with_suffix(".log").open("ab") as output:
        command = [sys.executable, "-m", "tailmatch.cli", *words]
        return subprocess.run(command, stdout=output, stderr=output, env=environment).returncode


def train(folder: Path, settings: dict[str, Any], seed: int, done: str, test: str) -> None:
    """Train one run, or continue it, unless it has its results.

    Args:
        folder: Folder of the run.
        settings: Its configuration.
        seed: Seed of split, weights and views.
        done: Name of the file in the folder that has the results.
        test: Checkpoint to test after the training, such as `last`.
    """
    if (folder / done).exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings))
    code = tailmatch(
        folder, "fit", "--config", str(config), "--run_dir", str(folder), "--seed_everything", str(seed),
        "--ckpt_path", "auto",
    )  # fmt: skip
    if code == 0:
        code = tailmatch(folder, "test", "--run_dir", str(folder), "--ckpt_path", test)
    log = folder.with_suffix(".log")
    print(f"{folder.name}: {'done' if code == 0 else f'failed with exit code {code}, see {log}'}", flush=True)


def in_parallel(workers: int, jobs: Iterable[Callable[[], None]]) -> None:
    """Run jobs, a number of them at a time, and raise the first error after all have ended."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(job) for job in jobs]
    for future in futures:
        future.result()


def over_seeds(values: Sequence[float | None]) -> str:
    """Write the mean of the values that there are, and their standard deviation if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    shown = f"{mean(known):.1f}"
    if len(known) > 1:
        return f"{shown} ± {stdev(known):.1f}"
    return f"{shown} (one seed)" if len(values) > 1 else shown
