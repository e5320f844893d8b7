"""Train on random images at the published CIFAR setting for some seconds, and time the steps.

WRN-28-2, 64 labeled and 448 unlabeled images of 32 pixels (MixMatch: 64, SimPro: 512), images and views as in any
training, no logger and no checkpoints.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch.profiler import profile

from benchmarks.darp_solver import synchronize
from tailmatch.datamodules import InMemory, ListedCounts
from tailmatch.lightning_modules import FixMatch, MixMatch, SimPro
from tailmatch.lightning_modules.networks import CifarResNet, WideResNet

CLASSES, SIZE = 10, 32
METHODS: dict[str, tuple[Callable[..., Any], int]] = {
    "FixMatch": (FixMatch, 7), "MixMatch": (MixMatch, 1), "SimPro": (SimPro, 8)
}  # fmt: skip
"""Methods, and how many unlabeled images a labeled one has in a batch."""


@dataclass(frozen=True)
class Setting:
    """What is trained, and where.

    Attributes:
        device: `cuda` or `cpu`.
        seconds: How long steps are timed.
        batch_size: Labeled images of a batch.
        images: Images of the data set.
        small: Whether the network is CifarResNet-8, to try the program.
    """

    device: str
    seconds: float
    batch_size: int
    images: int
    small: bool


class Enough(Exception):
    """Everything is measured."""


class Pace(Callback):
    """Times the steps of a training after some, on a device that works on while the host goes ahead.

    Attributes:
        step: Seconds of a step.
        steps: Number of steps so far.
        busy: Mean share of the time in which the device computes, as its driver says; None if it does not.
    """

    def __init__(self, seconds: float, warm_up: int, tf32: bool) -> None:
        self.seconds, self.warm_up, self.tf32 = seconds, warm_up, tf32
        self.step, self.steps, self._begun = 0.0, 0, 0.0
        self.busy: float | None = None
        self._samples: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose between full precision and TF32 for convolutions and products of matrices."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Begin, or end, to time.

        Raises:
            Enough: Enough steps were timed.
        """
        self.steps += 1
        if self.steps == self.warm_up:
            synchronize(pl_module.device)
            self._begun = time.perf_counter()
            self.begin(pl_module)
        elif self.steps > self.warm_up and time.perf_counter() - self._begun > self.seconds:
            synchronize(pl_module.device)
            self.step = (time.perf_counter() - self._begun) / (self.steps - self.warm_up)
            self.end()
            raise Enough

    def begin(self, pl_module: LightningModule) -> None:
        """Sample the utilization every fifth of a second, in a thread."""
        self._over = threading.Event()
        if pl_module.device.type == "cuda":
            threading.Thread(target=self._sample, daemon=True).start()

    def end(self) -> None:
        """Average the samples."""
        self._over.set()
        self.busy = sum(self._samples) / len(self._samples) / 100 if self._samples else None

    def _sample(self) -> None:
        while not self._over.wait(0.2):
            try:
                self._samples.append(torch.cuda.utilization())
            except Exception:  # without nvidia-ml-py, or where the driver does not tell
                return


class Profiled(Pace):
    """Profiles the timed steps."""

    def begin(self, pl_module: LightningModule) -> None:
        """Start the profiler."""
        self.profiler = profile()
        self.profiler.start()

    def end(self) -> None:
        """Stop the profiler."""
        self.profiler.stop()


def train(method: str, setting: Setting, pace: Pace, *callbacks: Callback, **trainer: Any) -> int:
    """Train until enough is measured; return the number of images of a step."""
    kind, ratio = METHODS[method]
    seed_everything(0, verbose=False)
    half = setting.images // CLASSES // 2
    data = InMemory(
        torch.randint(256, (2 * half * CLASSES, 3, SIZE, SIZE), dtype=torch.uint8),
        torch.arange(2 * half * CLASSES) % CLASSES,
        class_counts=ListedCounts([half] * CLASSES, [half] * CLASSES),
        labeled_batch_size=setting.batch_size,
        unlabeled_ratio=ratio,
        steps_per_epoch=1 << 20,
    )
    network = partial(CifarResNet, depth=8) if setting.small else WideResNet
    with TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "accelerator": "gpu" if setting.device == "cuda" else "cpu", "devices": 1, "max_epochs": 1, "logger": False,
            "enable_checkpointing": False, "use_distributed_sampler": False, "enable_progress_bar": False,
            "enable_model_summary": False, "default_root_dir": Path(folder),
        }  # fmt: skip
        made = Trainer(callbacks=[*callbacks, pace], **settings | trainer)
        try:
            made.fit(kind(CLASSES, network=network), data)
        except Enough:
            return setting.batch_size * (1 + ratio)
    raise RuntimeError("the training ended by itself")
