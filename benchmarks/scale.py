"""Measure a training step and its memory against the number of images.

    python -m benchmarks.scale [--sizes 10000 100000 1000000] [--steps 40] [--threads 1]

CifarResNet-8 on random images of 8 pixels in memory, batches of 16 labeled and 32 unlabeled images. Rows: FixMatch and
methods that keep something for each unlabeled image, against the number of unlabeled images (100 are labeled); and
`Supervised` with balanced sampling, against the number of labeled images. A step should take the same time at every
size. The median of the steps' times is printed, and the bytes of method and remedies in a checkpoint.
"""

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from benchmarks.step import Clock
from tailmatch.callbacks import DARP, DistributionAlignment
from tailmatch.datamodules import InMemory, ListedCounts
from tailmatch.lightning_modules import SAW, FixMatch, Supervised
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.training.finite import tensors_in
from tailmatch.lightning_modules.weightings import CurriculumThresholds

CLASSES, SIZE, FEW = 10, 8, 10

Row = tuple[Callable[..., Any], Callable[[], list[Callback]], bool]
"""A method, its callbacks, and whether the labeled images are the many ones."""

ROWS: dict[str, Row] = {
    "FixMatch": (FixMatch, list, False),
    "FlexMatch": (lambda *args, **kwargs: FixMatch(*args, weighting=CurriculumThresholds(), **kwargs), list, False),
    "SAW": (SAW, list, False),
    "FixMatch + alignment": (FixMatch, lambda: [DistributionAlignment()], False),
    "FixMatch + DARP, between refinements": (FixMatch, lambda: [DARP(warmup_epochs=0, refine_every=10)], False),
    "Supervised, balanced sampling": (Supervised, list, True),
}


def step(row: Row, size: int, steps: int, folder: Path) -> tuple[float, int]:
    """Return the median seconds of a step, and the bytes of the state in a checkpoint that are kept for each image."""
    kind, callbacks, labeled = row
    seed_everything(0, verbose=False)
    few, many = [FEW] * CLASSES, [size // CLASSES] * CLASSES
    counts = ListedCounts(many, few) if labeled else ListedCounts(few, many)
    total = FEW * CLASSES + size
    pixels = torch.randint(256, (total, 3, SIZE, SIZE), dtype=torch.uint8)
    data = InMemory(
        pixels,
        torch.arange(total) % CLASSES,
        class_counts=counts,
        labeled_batch_size=16,
        unlabeled_ratio=2,
        steps_per_epoch=steps,
        labeled_sampling="balanced" if labeled else "uniform",
    )
    clock = Clock()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=[*callbacks(), clock],
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(kind(CLASSES, network=partial(CifarResNet, depth=8)), data)
    trainer.save_checkpoint(folder / "end.ckpt")
    checkpoint = torch.load(folder / "end.ckpt", weights_only=True)
    tensors = tensors_in([checkpoint["state_dict"], checkpoint["callbacks"]]).values()
    kept = sum(
        tensor.numel() * tensor.element_size() for tensor in tensors if len(tensor.shape) and len(tensor) >= size
    )
    times = [b - a for a, b in zip(clock.ended[5:-1], clock.ended[6:], strict=True)]
    return statistics.median(times), kept


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    lines = [
        "| ms a step, with so many images | " + " | ".join(f"{size:,}" for size in options.sizes) + " | state (MB) |",
        "|---|" + "---:|" * (len(options.sizes) + 1),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, row in ROWS.items():
            found = [step(row, size, options.steps, Path(folder)) for size in options.sizes]
            cells = " | ".join(f"{1e3 * seconds:.1f}" for seconds, _ in found)
            lines.append(f"| {name} | {cells} | {found[-1][1] / 1e6:.1f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
