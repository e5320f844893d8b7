"""Predict a training step on a GPU from what can be counted without one: arithmetic and launches.

    python -m benchmarks.gpu_prediction [--launch 4] [--rates 40 100 200]

The trainings are those of `benchmarks.gpu`: WRN-28-2 at the published CIFAR setting. Floating-point operations of
convolutions and products of matrices are counted in a step with a 16th of the images, and are in proportion to them.
Launches are counted in one with a quarter of the images, on the pretended GPU of the tests, as in
`benchmarks.launches`. A step takes at least the longer of the two: all launches, at `--launch` microseconds each, and
the arithmetic, at one of the `--rates` in TFLOP/s. These are for an H200: three fifths of what it is sold for in full
precision, and a fifth in TF32 and bfloat16, whose tensor cores are not filled by layers of 32 to 128 channels. The
time that memory takes is not counted.
"""

import argparse
import warnings
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_training import METHODS, Enough, Pace, Setting, train
from benchmarks.launches import CountingGPU

PART = 16


def part(divisor: int) -> Setting:
    """Return the setting with some of the images of a step."""
    return Setting("cpu", 0, 64 // divisor, 400, False)


class Launches(Pace):
    """Counts the kernels of the second step."""

    def __init__(self, gpu: CountingGPU) -> None:
        super().__init__(0, 1, False)
        self.gpu, self.before = gpu, torch.zeros(4)

    def on_train_batch_end(self, *args: Any) -> None:
        """Note the count, or end.

        Raises:
            Enough: It was counted.
        """
        self.steps += 1
        if self.steps == self.warm_up:
            self.before = self.gpu.counts()
        else:
            self.kernels = int((self.gpu.counts() - self.before)[0])
            raise Enough


def flops(method: str) -> float:
    """Count the floating-point operations of a step with all images."""
    pace, counter = Pace(0, 1, False), FlopCounterMode(display=False)
    with counter:
        train(method, part(PART), pace)
    return counter.get_total_flops() / pace.steps * PART


def launches(method: str) -> int:
    """Count the kernels of a step."""
    with CountingGPU() as gpu:
        pace = Launches(gpu)
        train(method, part(4), pace, accelerator="auto", strategy=gpu.strategy())
    return pace.kernels


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launch", type=float, default=4, help="microseconds of a launch (default: 4)")
    parser.add_argument("--rates", type=float, nargs=3, default=(40, 100, 200), help="TFLOP/s (default: 40 100 200)")
    options = parser.parse_args()
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    heads = [f"{name}, {rate:g} TFLOP/s" for name, rate in zip(("fp32", "TF32", "bf16"), options.rates, strict=True)]
    print(f"| ms a step | GFLOP | kernels | launches | {' | '.join(heads)} | hours to 2^20 steps, TF32 |")
    print("|---|" + "---:|" * 7)
    for method in METHODS:
        operations, kernels = flops(method), launches(method)
        launching = options.launch * kernels / 1e3
        steps = [operations / rate / 1e9 for rate in options.rates]
        hours = max(launching, steps[1]) * (1 << 20) / 3.6e6
        cells = " | ".join(f"{step:.1f}" for step in steps)
        print(
            f"| {method} | {operations / 1e9:,.0f} | {kernels:,} | {launching:.1f} | {cells} | {hours:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
