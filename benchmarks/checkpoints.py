"""Measure the checkpoints of what keeps numbers of each unlabeled image: size, time, memory.

    python -m benchmarks.checkpoints [--images 1000000] [--classes 100] [--rounds 5] [--rows DARP CPG]

CifarResNet-8 on random images of 8 pixels in memory. Each row is a process of its own. After a training step, it
alternates `Trainer.save_checkpoint` with `torch.save` of the same content to a file that is synced to the disk, too.
`read` is `AtomicCheckpointIO.load_checkpoint`, and beside it `torch.load` of the same file. `resumed` is the time of a
fit from its set-up to its first batch, from the checkpoint. `memory` is the peak beyond what the training holds, while
the checkpoint is written; Linux alone tells.
"""

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from benchmarks.darp_solver import median_seconds, with_extra_bytes
from tailmatch.callbacks import DARP, DistributionAlignment, PseudoLabelGenerator
from tailmatch.datamodules import InMemory, ListedCounts
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules import CPG, FixMatch, SelfTraining
from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.weightings import CurriculumThresholds

CPU, FEW = torch.device("cpu"), 2
HEADER = """\
| ms a checkpoint | MB | written | torch.save | read | torch.load | resumed | memory (MB) |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def random_probs(rows: int, classes: int) -> torch.Tensor:
    """Make predictions `float32 [rows, classes]`."""
    return torch.randn(rows, classes).mul_(3).softmax(dim=1)


class KnownDARP(DARP):
    """DARP that knows predictions of all images before the first step, which refines all of them."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Predict all images, unless they come from a checkpoint."""
        super().on_train_batch_start(trainer, pl_module, *args)
        if not trainer.global_step:
            self._rows.predictions = random_probs(*self._rows.predictions.shape)


class KnownLabels(PseudoLabelGenerator):
    """Generator that has soft labels of all images before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the labels, unless they come from a checkpoint."""
        if self._labels is None:
            probs = random_probs(len(trainer.datamodule.unlabeled), trainer.datamodule.num_classes)  # type: ignore[attr-defined]
            confidence, label = probs.max(dim=1)
            self._labels, self._epoch = PseudoLabels(label, confidence, probs), 0
        super().on_train_start(trainer, pl_module)


Row = tuple[Callable[..., Any], Callable[[], list[Callback]]]
ROWS: dict[str, Row] = {
    "FixMatch": (FixMatch, list),
    "DistributionAlignment": (FixMatch, lambda: [DistributionAlignment()]),
    "FlexMatch": (partial(FixMatch, weighting=CurriculumThresholds()), list),
    "CPG": (partial(CPG, warmup_steps=0, every=1), list),
    "SelfTraining": (partial(SelfTraining, soft=True), lambda: [KnownLabels(every_n_epochs=1, warmup_epochs=0)]),
    "DARP": (FixMatch, lambda: [KnownDARP(warmup_epochs=0, refine_every=10)]),
}


class Measure(Callback):
    """Measures in a training after its first step: see above.

    Attributes:
        begun: When the first batch began, in seconds after the set-up.
        numbers: Size, times and memory.
    """

    def __init__(self, file: Path, rounds: int) -> None:
        self.file, self.rounds = file, rounds
        self.begun, self._set_up, self.numbers = 0.0, 0.0, dict[str, float]()

    def setup(self, *args: Any, **named: Any) -> None:
        """Note the time."""
        self._set_up = time.perf_counter()

    def on_train_batch_start(self, *args: Any) -> None:
        """Note the time."""
        self.begun = self.begun or time.perf_counter() - self._set_up

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Measure, unless it is done."""
        if self.file.exists():
            return
        _, extra = with_extra_bytes(lambda: trainer.save_checkpoint(self.file), CPU)  # type: ignore[arg-type, return-value]
        content, other = torch.load(self.file, weights_only=True), self.file.with_suffix(".plain")
        sides: dict[str, Callable[[], object]] = {
            "written": lambda: trainer.save_checkpoint(self.file),
            "saved": lambda: save_plainly(content, other),
            "read": lambda: AtomicCheckpointIO().load_checkpoint(self.file),
            "loaded": lambda: torch.load(self.file, weights_only=True),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(self.rounds + (self.rounds > 0)):  # the first files of a disk that was at rest take longer
            for name in list(sides)[:: -1 if number % 2 else 1]:  # it may still be at what the side before wrote
                times[name].append(median_seconds(sides[name], 1, CPU))
        self.numbers = {name: statistics.median(taken[1:]) for name, taken in times.items()}
        self.numbers |= {"size": self.file.stat().st_size, "memory": extra}
        other.unlink()


def save_plainly(content: object, path: Path) -> None:
    """Save as `torch.save` does, and wait for the disk."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def fit(row: Row, images: int, classes: int, measure: Measure, resumed: Path | None = None) -> None:
    """Train two steps, or from a checkpoint after the first step on."""
    kind, callbacks = row
    seed_everything(0, verbose=False)
    total = FEW * classes + images // classes * classes
    data = InMemory(
        torch.randint(256, (total, 3, 8, 8), dtype=torch.uint8),
        torch.arange(total) % classes,
        class_counts=ListedCounts([FEW] * classes, [images // classes] * classes),
        labeled_batch_size=16,
        unlabeled_ratio=2,
        steps_per_epoch=2,
    )
    trainer = Trainer(
        max_epochs=2,
        max_steps=2 + (resumed is not None),  # CPG refuses a training of one step
        accelerator="cpu",
        default_root_dir=measure.file.parent,
        callbacks=[*callbacks(), measure],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    model = kind(classes, network=partial(CifarResNet, depth=8))
    trainer.fit(model, data, ckpt_path=None if resumed is None else str(resumed))


def measured(name: str, options: argparse.Namespace) -> str:
    """Measure a row."""
    with tempfile.TemporaryDirectory() as folder:
        first = Measure(Path(folder) / "state.ckpt", options.rounds)
        fit(ROWS[name], options.images, options.classes, first)
        again = Measure(first.file, 0)
        fit(ROWS[name], options.images, options.classes, again, resumed=first.file)
    found = first.numbers
    times = [*(found[part] for part in ("written", "saved", "read", "loaded")), again.begun]
    cells = " | ".join(f"{1e3 * seconds:,.0f}" for seconds in times)
    return f"| {name} | {found['size'] / 1e6:,.1f} | {cells} | {found['memory'] / 1e6:,.0f} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if len(options.rows) == 1:
        print(measured(options.rows[0], options))
        return
    print(HEADER, flush=True)
    words = [f"--{name}={getattr(options, name)}" for name in ("images", "classes", "rounds")]
    for name in options.rows:
        subprocess.run([sys.executable, "-m", "benchmarks.checkpoints", *words, "--rows", name], check=True)


if __name__ == "__main__":
    main()
