"""Time FixMatch's step as users run it, against its bare arithmetic and against the usual way in PyTorch.

    python -m benchmarks.step [--rounds 3] [--steps 4] [--batch-size 16] [--unlabeled-ratio 7] [--threads 2]
    python -m benchmarks.step --compiled

All train WRN-28-2 on images of 32 pixels:

* ours: `tailmatch fit` on the embedded digits, with loaders, views, logging, averages and its report of the progress;
* bare: the same passes, backward pass, optimizer and average on tensors that lie there, and nothing else;
* usual: a loop over a `DataLoader` whose workers make each view of each image with Pillow, then one joint pass of
  labeled, weak and strong images, and an average of the weights that is updated parameter by parameter.

With `--compiled`, also ours with `CompiledBackbone`, and how long the first step takes, in which the compiler works.

Each round times some steps of each, in turn. Medians over rounds are printed, and their ratios to the bare arithmetic.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any
from unittest import mock

import torch
from pytorch_lightning import Callback
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.command import run_watched
from benchmarks.views import Maker, PillowViews, pillow_strong_view, pillow_weak_view
from tailmatch.lightning_modules.networks import WideResNet

CLASSES, SIZE, THRESHOLD = 10, 32, 0.95


class Clock(Callback):
    """Notes when the training began and when each step ended."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.ended: list[float] = []

    def on_train_start(self, *args: Any) -> None:
        """Note the time."""
        self.begun = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        """Note the time."""
        self.ended.append(time.perf_counter())


def ours(options: argparse.Namespace) -> float:
    """Return the median seconds of a step of `tailmatch fit`, after the first two."""
    return fitted(options)[1]


def fitted(options: argparse.Namespace, *more: str) -> tuple[float, float]:
    """Return the seconds of the first step of `tailmatch fit`, and the median of those after the first two."""
    clock = Clock()
    words = [
        "--data=Digits", f"--data.image_size={SIZE}", f"--data.labeled_batch_size={options.batch_size}",
        f"--data.unlabeled_ratio={options.unlabeled_ratio}", f"--data.steps_per_epoch={options.steps + 2}",
        "--model=FixMatch", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run_watched(clock, "fit", *words, *more, f"--run_dir={folder}/run")
    later = statistics.median(b - a for a, b in zip(clock.ended[1:-1], clock.ended[2:], strict=True))
    return clock.ended[0] - clock.begun, later


def compiled(options: argparse.Namespace) -> float:
    """Return the median seconds of a step of `tailmatch fit` with a compiled backbone, and print those of the first."""
    torch.compiler.reset()
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        first, later = fitted(options, "--trainer.callbacks+=CompiledBackbone")
    print(f"the first step with CompiledBackbone took {first:.0f} s", flush=True)
    return later


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


def usual(options: argparse.Namespace) -> float:
    """Return the median seconds of a step of a plain loop."""
    network = WideResNet(CLASSES)
    average = deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    sizes = options.batch_size, options.batch_size * options.unlabeled_ratio
    makers: list[list[Maker]] = [[pillow_weak_view], [pillow_weak_view, pillow_strong_view]]
    batches = options.steps + 1 + 2 * options.workers  # one for warming up, and those that workers go on with
    loaders: list[Iterator[Any]] = [
        iter(DataLoader(PillowViews(size * batches, each), size, shuffle=True, num_workers=options.workers))
        for size, each in zip(sizes, makers, strict=True)
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
    parser.add_argument("--compiled", action="store_true", help="also measure CompiledBackbone (some minutes more)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    ways = {"ours, `tailmatch fit`": ours, "the bare arithmetic": bare, "the usual way": usual}
    if options.compiled:
        ways["ours, with `CompiledBackbone`"] = compiled
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
