"""Time FixMatch's step as users run it, against its bare arithmetic and against the usual way in PyTorch.

    python -m benchmarks.step [--rounds 3] [--steps 4] [--batch-size 16] [--unlabeled-ratio 7] [--threads 2]

All train WRN-28-2 on images of 32 pixels:

* ours: `tailmatch fit` on the embedded digits, with loaders, views, logging, averages and its report of the progress;
* bare: the same passes, backward pass, optimizer and average on tensors that lie there, and nothing else;
* usual: a loop over a `DataLoader` whose workers make each view of each image with Pillow, then one joint pass of
  labeled, weak and strong images, and an average of the weights that is updated parameter by parameter.

Each round times some steps of each, in turn. Medians over rounds are printed, and their ratios to the bare arithmetic.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from pytorch_lightning import Callback
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.command import run_watched
from benchmarks.views import pillow_strong_view
from tailmatch.lightning_modules.networks import WideResNet

CLASSES, SIZE, THRESHOLD = 10, 32, 0.95


class Clock(Callback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        """Note the time."""
        self.ended.append(time.perf_counter())


def ours(options: argparse.Namespace) -> float:
    """Return the median seconds of a step of `tailmatch fit`, after the first two."""
    clock = Clock()
    words = [
        "--data=Digits", f"--data.image_size={SIZE}", f"--data.labeled_batch_size={options.batch_size}",
        f"--data.unlabeled_ratio={options.unlabeled_ratio}", f"--data.steps_per_epoch={options.steps + 2}",
        "--model=FixMatch", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run_watched(clock, "fit", *words, f"--run_dir={folder}/run")
    return statistics.median(b - a for a, b in zip(clock.ended[1:-1], clock.ended[2:], strict=True))


def bare(options: argparse.Namespace) -> float:
    """Return the median seconds of the arithmetic of a step."""
    labeled, unlabeled = options.batch_size, options.batch_size * options.unlabeled_ratio
    network = WideResNet(CLASSES)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    weak, joint = torch.rand(unlabeled, 3, SIZE, SIZE), torch.rand(labeled + unlabeled, 3, SIZE, SIZE)
    target = torch.randint(CLASSES, (labeled,))

    def step() -> None:
        with torch.no_grad():
            confidence, pseudo_label = network(weak).softmax(dim=1).max(dim=1)
        loss = fixmatch_loss(network(joint), target, confidence, pseudo_label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(average, list(network.parameters()), 0.001)

    return median_seconds(step, options.steps)


def fixmatch_loss(logits: Tensor, target: Tensor, confidence: Tensor, pseudo_label: Tensor) -> Tensor:
    """Compute FixMatch's loss of labeled, then strong images."""
    of_labeled, of_strong = logits.tensor_split([len(target)])
    losses = functional.cross_entropy(of_strong, pseudo_label, reduction="none")
    return functional.cross_entropy(of_labeled, target) + (losses * (confidence >= THRESHOLD)).mean()


class Views(Dataset[tuple[Tensor, ...]]):
    """A weak view of each labeled image, or a weak and a strong one of each unlabeled image, made with Pillow."""

    def __init__(self, count: int, strong: bool) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), dtype=np.uint8)
        self.images = [Image.fromarray(pixels) for pixels in noise]
        self.count, self.strong = count, strong

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image = self.images[index % len(self.images)]
        views = (pillow_weak_view(image), *([pillow_strong_view(image)] if self.strong else []))
        return (*views, torch.tensor(index % CLASSES))


def pillow_weak_view(image: Image.Image) -> Tensor:
    """Make a weak view of one image: `float32 [3, H, W]` in [0, 1]."""
    if np.random.rand() < 0.5:
        image = ImageOps.mirror(image)
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    top, left = np.random.randint(0, 9, 2)
    pixels = np.ascontiguousarray(padded[top : top + SIZE, left : left + SIZE])
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255)


def usual(options: argparse.Namespace) -> float:
    """Return the median seconds of a step of a plain loop."""
    network = WideResNet(CLASSES)
    average = deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    sizes = options.batch_size, options.batch_size * options.unlabeled_ratio
    loaders: list[Iterator[Any]] = [
        iter(DataLoader(Views(size * (options.steps + 4), strong), size, shuffle=True, num_workers=options.workers))
        for size, strong in zip(sizes, (False, True), strict=True)
    ]

    def step() -> None:
        (images, target), (weak, strong, _) = (next(loader) for loader in loaders)
        logits = network(torch.cat([images, weak, strong]))
        of_labeled, of_weak, of_strong = logits.split([sizes[0], sizes[1], sizes[1]])
        confidence, pseudo_label = of_weak.detach().softmax(dim=1).max(dim=1)
        loss = fixmatch_loss(torch.cat([of_labeled, of_strong]), target, confidence, pseudo_label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, parameter in zip(average.parameters(), network.parameters(), strict=True):
                kept.mul_(0.999).add_(parameter, alpha=0.001)

    return median_seconds(step, options.steps)


def median_seconds(step: Callable[[], None], steps: int) -> float:
    """Time a step some times, after one for warming up."""
    step()
    times = []
    for _ in range(steps):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each in a round (default: 4)")
    parser.add_argument("--batch-size", type=int, default=16, help="labeled images of a batch (default: 16)")
    parser.add_argument("--unlabeled-ratio", type=int, default=7, help="unlabeled images for each (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the usual way (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    ways = {"ours, `tailmatch fit`": ours, "the bare arithmetic": bare, "the usual way": usual}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            times[name].append(way(options))
    lines = ["| a step of FixMatch | seconds | of the bare arithmetic |", "|---|---:|---:|"]
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times["the bare arithmetic"], strict=True))
        lines.append(f"| {name} | {statistics.median(taken):.3f} | {ratio:.2f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
