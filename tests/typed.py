"""The command line in a process of its own, as a user calls it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = [
    "--data=Digits", "--data.image_size=16", "--data.labeled_batch_size=16", "--data.steps_per_epoch=10",
    "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=5",
]  # fmt: skip
"""A short training on digits."""


def call(*args: str) -> subprocess.CompletedProcess[str]:
    """What came of `tailmatch ARGS`."""
    return subprocess.run(
        [sys.executable, "-m", "tailmatch.cli", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


def tailmatch(*args: str) -> str:
    """What `tailmatch ARGS` printed; it must end well."""
    result = call(*args)
    assert result.returncode == 0, result.stderr
    return result.stdout


def method(name: str) -> list[str]:
    """A short training of a method with a small network."""
    network = ["--model.network=CifarResNet", "--model.network.depth=8"]
    return [*SMALL, f"--model=lightning_modules.{name}", *network]
