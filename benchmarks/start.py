"""Measure where the time goes from the start of a process to the end of its first training step.

    python -m benchmarks.start [--rounds 3] [--images 400]

A round runs `tailmatch --help`, `tailmatch fit --help` and `tailmatch fit`, each in a new process. The training is on
JPEG files whose cache is built: FixMatch with WRN-28-2, 32 pixels, 8 labeled and 8 unlabeled images a step, with all
reports and logs. The table has medians over rounds; a row begins where the one before ends.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""With it, Python would compile every module of this package anew, which takes a third of a second."""

ROWS = (
    "Python and torch are imported", "so is Lightning", "so is tailmatch", "the settings are read",
    "data, method and trainer are made", "the images are found", "the training begins", "the first step ends",
    "(the second step)",
)  # fmt: skip


def measure_fit(words: list[str], started: float) -> None:
    """Run a training in this process, which has just started, and print when each part of it ended."""
    ended = [started]

    def note() -> None:
        ended.append(time.time())

    import torch

    note()
    import pytorch_lightning as lightning

    note()
    from tailmatch.command_line.lightning_cli import TailmatchCLI

    note()

    class Notes(lightning.Callback):
        def setup(self, *args: object, **named: object) -> None:
            note()

        def on_train_start(self, *args: object) -> None:
            note()

        def on_train_batch_end(self, *args: object) -> None:
            note()

    class Noting(TailmatchCLI):
        def before_instantiate_classes(self) -> None:
            note()
            super().before_instantiate_classes()

        def instantiate_classes(self) -> None:
            super().instantiate_classes()
            self.trainer.callbacks.append(Notes())  # type: ignore[attr-defined]
            note()

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    sys.argv = ["tailmatch", *words]
    Noting(words)
    print("\n" + " ".join(str(b - a) for a, b in zip(ended, ended[1:], strict=False)))


def seconds(words: list[str]) -> float:
    """Time a command in a new process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tailmatch.cli", *words], capture_output=True, check=True, env=ENVIRONMENT)
    return time.perf_counter() - begun


def parts(words: list[str]) -> list[float]:
    """Time the parts of a training in a new process."""
    program = [sys.executable, "-m", "benchmarks.start", "--started", str(time.time()), *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def main() -> None:
    """Measure, and print the table."""
    if sys.argv[1:2] == ["--started"]:  # before anything is imported
        measure_fit(sys.argv[3:], float(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=400, help="test images; half as many to train (default: 400)")
    options = parser.parse_args()
    from benchmarks.image_files import write_images

    helps: list[list[float]] = []
    fits: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder) / "images", options.images, 64)
        fit = [
            "fit", "--model=FixMatch", "--data=ImageFolder", f"--data.root={files}", "--data.image_size=32",
            f"--data.cache_dir={folder}/cache", "--data.labeled_batch_size=8", "--data.unlabeled_ratio=1",
            "--data.steps_per_epoch=2", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
        ]  # fmt: skip
        for number in range(options.rounds + 1):  # the first fills caches
            helps.append([seconds(["--help"]), seconds(["fit", "--help"])])
            fits.append(parts([*fit, f"--run_dir={folder}/{number}"]))
    whole, of_fit = (statistics.median(column) for column in zip(*helps[1:], strict=True))
    print(f"| | seconds |\n|---|---:|\n| `tailmatch --help` | {whole:.2f} |\n| `tailmatch fit --help` | {of_fit:.2f} |")
    for name, column in zip(ROWS, zip(*fits[1:], strict=True), strict=True):
        print(f"| a training: {name} | {statistics.median(column):.2f} |")
    print(f"| in all, until the first step ends | {statistics.median(sum(row[:-1]) for row in fits[1:]):.2f} |")


if __name__ == "__main__":
    main()
