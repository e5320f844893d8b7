"""Time steps on a CPU with and without `keep_freed_memory`, in turn within one training.

    python -m benchmarks.heap [--switches 8] [--steps 5] [--threads 2]

The setting is switched every few steps; the first step after a switch is left out. Without it, malloc is told the
limits at which glibc's own ones end: 32 MB for a block, and 64 MB for free memory at the end of the heap.
"""

import argparse
import ctypes
import logging
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from pytorch_lightning import Callback

from benchmarks.command import run_watched
from tailmatch.lightning_modules.training.heap import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

LITE0 = [
    "--model.network=TimmNetwork",
    "--model.network.name=tf_efficientnet_lite0",
    "--model.network.pretrained=false",
]
TRAININGS = {
    "FixMatch, WRN-28-2, 32 px, 16 + 32 images": [
        "--model=FixMatch", "--data.image_size=32", "--data.labeled_batch_size=16", "--data.unlabeled_ratio=2"
    ],
    "FixMatch, EfficientNet-Lite0, 96 px, 16 + 32 images": [
        "--model=FixMatch", *LITE0, "--data.image_size=96", "--data.labeled_batch_size=16", "--data.unlabeled_ratio=2"
    ],
    "Supervised, its last block and head, 96 px, 32 images": [
        "--model=Supervised", *LITE0, "--model.tune=Tuning", "--model.tune.blocks=1", "--data.image_size=96",
        "--data.labeled_batch_size=32",
    ],
}  # fmt: skip


class Switch(Callback):
    """Switches the setting every few steps, and notes the seconds of the others of them.

    Args:
        steps: The number of steps between two switches, at least 2.

    Attributes:
        seconds: The seconds of steps without and with the setting.
    """

    def __init__(self, steps: int) -> None:
        self.every, self.done, self.ended = steps, 0, 0.0
        self.seconds: tuple[list[float], list[float]] = ([], [])

    def on_train_batch_start(self, *args: Any) -> None:
        """Switch, or leave it."""
        if self.done % self.every == 0:
            if self.done // self.every % 2:
                keep_freed_memory()
            else:
                malloc = ctypes.CDLL(None).mallopt
                malloc(M_MMAP_THRESHOLD, 2**25)
                malloc(M_TRIM_THRESHOLD, 2**26)

    def on_train_batch_end(self, *args: Any) -> None:
        """Note the time, but for the first step after a switch and the first of all."""
        now = time.perf_counter()
        if self.done % self.every and self.done > self.every:
            self.seconds[self.done // self.every % 2].append(now - self.ended)
        self.ended, self.done = now, self.done + 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=8, help="default: 8")
    parser.add_argument("--steps", type=int, default=5, help="steps between two switches (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if not keep_freed_memory():
        raise SystemExit("malloc cannot be told anything here, or the environment has told it")
    print("| a step of | seconds, memory given back | kept | ratio |")
    print("|---|---:|---:|---:|")
    for name, words in TRAININGS.items():
        switch = Switch(options.steps)
        with tempfile.TemporaryDirectory() as folder:
            run_watched(
                switch,
                "fit",
                "--data=Digits",
                f"--data.steps_per_epoch={options.steps * (options.switches + 1)}",
                *words,
                "--trainer.max_epochs=1",
                "--trainer.accelerator=cpu",
                "--trainer.limit_val_batches=0",
                f"--run_dir={folder}/run",
            )
        without, kept = (statistics.median(seconds) for seconds in switch.seconds)
        print(f"| {name} | {without:.3f} | {kept:.3f} | {kept / without:.2f} |")


if __name__ == "__main__":
    main()
