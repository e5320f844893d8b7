"""Run the command line as a user does: in this process, which is fast, or in a new one."""

import gc
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from tailmatch.cli import main

ROOT = Path(__file__).parent.parent
SMALL = [
    "--data=Digits", "--data.image_size=16", "--data.labeled_batch_size=16", "--data.steps_per_epoch=10",
    "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=5",
]  # fmt: skip
"""A short training on digits."""

Result = subprocess.CompletedProcess[str]


def call(*args: str, **options: Any) -> Result:
    """Run `tailmatch ARGS` in a new process, which is necessary if the run starts more processes."""
    return subprocess.run(
        [sys.executable, "-m", "tailmatch.cli", *args],
        **{"capture_output": True, "text": True, "cwd": ROOT, "timeout": 300, "check": False, **options},
    )


def call_here(*args: str) -> Result:
    """Run `tailmatch ARGS` in this process, which saves the seconds that imports take."""
    if any(word.startswith("--trainer.devices=") and word[-1] != "1" for word in args):
        raise ValueError("use `call`: a run on several devices would start this process once more")
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), alone():
        code = exit_code(args)
    return Result(args, code, out.getvalue(), err.getvalue())


def exit_code(args: tuple[str, ...]) -> int:
    """Return the exit code with which an interpreter would end, and print what it would print."""
    try:
        main(args)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def alone() -> Iterator[None]:
    """Undo the global changes of a run: how warnings are shown, environment variables, import paths.

    Hypothesis lets the garbage collector call a function, where the exception that a signal raises would be lost.
    """
    callbacks = gc.callbacks.copy()
    with (
        warnings.catch_warnings(),
        mock.patch.object(warnings, "formatwarning", warnings.formatwarning),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "path", sys.path.copy()),
    ):
        gc.callbacks.clear()
        try:
            yield
        finally:
            gc.callbacks[:] = callbacks


def tailmatch(*args: str) -> str:
    """Run `tailmatch ARGS` in this process, assert that it succeeds, and return what it printed."""
    result = call_here(*args)
    assert result.returncode == 0, result.stderr
    return result.stdout


def method(name: str) -> list[str]:
    """Return the arguments of a short training of a method with a small network."""
    network = ["--model.network=CifarResNet", "--model.network.depth=8"]
    return [*SMALL, f"--model={name}", *network]
