"""Measure what DARP adds to a training step at CIFAR size, on the machine's device.

    python -m benchmarks.darp_step [--device cuda] [--steps 40] [--batch-size 64] [--unlabeled 10000]

FixMatch with a WRN-28-2 on random images: labeled and unlabeled batches of the same size, two strong views, refined
every 10 steps. Blocks of 10 steps with and without DARP alternate in one process (so each block with DARP has one
refinement). The medians over the blocks are printed.
"""

import argparse
import statistics
import time
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tailmatch.callbacks import DARP
from tailmatch.callbacks.remedies.darp.state import Rows
from tailmatch.lightning_modules import FixMatch

CLASSES, BLOCK = 10, 10


def batch(size: int, index: Tensor, device: torch.device) -> dict[str, Any]:
    """Make random images in [0, 1] as FixMatch's views."""

    def images() -> Tensor:
        return torch.rand(size, 3, 32, 32, device=device)

    return {
        "labeled": {"weak": images(), "target": torch.randint(CLASSES, (size,), device=device)},
        "unlabeled": {"weak": images(), "strong": [images(), images()], "index": index.to(device)},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--unlabeled", type=int, default=10_000)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)

    model = FixMatch(num_classes=CLASSES, strong_views=2).to(device)
    model.track = lambda **values: None  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    darp = DARP(warmup_epochs=0, refine_every=BLOCK)
    prior = 100.0 ** -torch.linspace(0, 1, CLASSES, dtype=torch.float64)
    darp.target_totals = prior * (args.unlabeled / prior.sum())
    darp._rows = Rows(args.unlabeled, CLASSES)
    darp._rows.predict(torch.arange(args.unlabeled), (3 * torch.randn(args.unlabeled, CLASSES)).softmax(dim=1))
    darp.on_train_batch_start(SimpleNamespace(current_epoch=0), model)  # type: ignore[arg-type]

    def block(refiners: list[Any]) -> float:
        model._refiners = refiners
        batches = [
            batch(args.batch_size, torch.randint(args.unlabeled, (args.batch_size,)), device) for _ in range(BLOCK)
        ]
        synchronize(device)
        start = time.perf_counter()
        for step in batches:
            optimizer.zero_grad()
            model.training_step(step, 0).backward()
            optimizer.step()
        synchronize(device)
        return (time.perf_counter() - start) / BLOCK

    block([darp])  # warm up
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(args.steps // BLOCK):
        times["without"].append(block([]))
        times["with"].append(block([darp]))
    without, with_darp = (statistics.median(times[name]) for name in ("without", "with"))
    print(f"{device}, {torch.get_num_threads()} threads, batch {args.batch_size}, {args.unlabeled:,} unlabeled images")
    print(f"step without DARP {1e3 * without:8.2f} ms")
    print(f"step with DARP    {1e3 * with_darp:8.2f} ms  ({with_darp / without - 1:+.1%})")


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
