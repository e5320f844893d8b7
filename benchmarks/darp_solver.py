"""Time DARP's refinement against a plain NumPy/SciPy implementation of the published iteration.

    python -m benchmarks.darp_solver
    python -m benchmarks.darp_solver --sizes 100000x100 1000000x1000 --device cuda --repeats 5

Predictions are synthetic: true classes drawn from a long tail of 1:100, a classifier biased to the reversed tail, rows
from nearly one-hot to nearly uniform; the target is the true tail. Each time is the median of the repetitions (on a CPU
only one for matrices with 10^8 entries or more), after a cold and a warm run on at most 20,000 of the rows.

reference   ten rounds of the published iteration and the sort before it, float64, SciPy's scalar Newton search;
            left out where it would take minutes, and several copies of the matrix in float64 might not fit
cold        `solve` without the prices of an earlier result
warm        `solve` with them, after one row in twenty has changed
off         largest |column total - target| as a share of all rows; that of the reference in brackets
memory      peak of the extra memory during the cold run, result included, in sizes of the matrix: from the peak
            resident set on Linux, from the allocator on CUDA
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.solver import Solution, Solver

SOLVER = Solver()
SIZES = ["15000x10", "100000x10", "100000x100", "1000000x100", "1000000x1000"]
REFERENCE_ENTRIES = 2 * 10**7
LARGE_ENTRIES = 10**8
WARM_UP_ROWS = 20_000


def predictions(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Make predictions `[rows, classes]`, in blocks to save memory, and return the true class totals too."""
    generator = torch.Generator().manual_seed(0)
    prior = torch.logspace(0, -2, classes)
    prior /= prior.sum()
    probs = torch.empty(rows, classes)
    for block in probs.split(max(1, (1 << 22) // classes)):
        truth = torch.multinomial(prior, len(block), replacement=True, generator=generator)
        logits = torch.randn(block.shape, generator=generator)
        logits[torch.arange(len(block)), truth] += 3
        sharpness = 1.5 * torch.exp(0.6 * torch.randn(len(block), 1, generator=generator))
        torch.softmax(logits.mul_(sharpness).add_(0.5 * prior.flip(0).log()), dim=1, out=block)
    return probs, prior.double() * (rows / prior.double().sum())


def change_some(probs: Tensor) -> None:
    """Sharpen one row in twenty, as if the classifier had seen them again."""
    some = probs[::20].pow(1.2)
    probs[::20] = some / some.sum(1, keepdim=True)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the median time of some calls of a function."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def resident_bytes(key: str) -> int:
    """Read VmRSS, or its peak VmHWM, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def with_extra_bytes(function: Callable[[], Solution], device: torch.device) -> tuple[Solution, int]:
    """Call a function; also return the peak of its memory beyond that before the call."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        return result, torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # memory freed by earlier runs would be reused unnoticed
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    before = resident_bytes("VmRSS")
    result = function()
    return result, resident_bytes("VmHWM") - before


def measure_reference(probs: Tensor, target: Tensor, repeats: int) -> tuple[float, float]:
    """Return seconds and the largest error of a column total as a share of the rows."""
    from benchmarks import darp_reference  # needs SciPy

    errors = []

    def run() -> None:
        kept = darp_reference.remove_noise(probs.double().numpy(), target.numpy(), SOLVER.alpha)
        totals = darp_reference.alternate(kept, target.numpy()).sum(0)
        errors.append(float(abs(totals - target.numpy()).max()) / len(probs))

    return median_seconds(run, repeats, torch.device("cpu")), errors[0]


def warm_up(probs: Tensor, target: Tensor) -> None:
    """Start threads and load the kernels for this number of classes, on some of the rows."""
    some = probs[:WARM_UP_ROWS]
    totals = target * (len(some) / target.sum())
    nu = SOLVER.solve(some, totals).nu
    SOLVER.solve(some, totals, nu)
    synchronize(probs.device)


def measure(rows: int, classes: int, device: torch.device, repeats: int) -> list[str]:
    """Return one line of the table."""
    probs, target = predictions(rows, classes)
    reference, error = None, 0.0
    if probs.numel() <= REFERENCE_ENTRIES:
        reference, error = measure_reference(probs, target, min(repeats, 3))
    probs, target = probs.to(device), target.to(device)
    if device.type == "cpu" and probs.numel() >= LARGE_ENTRIES:
        repeats = 1
    warm_up(probs, target)

    # Memory is measured in the first cold run.
    start = time.perf_counter()
    cold, extra = with_extra_bytes(lambda: SOLVER.solve(probs, target), device)
    cold_seconds = time.perf_counter() - start
    nu, summary = cold.nu, (cold.iterations, cold.residual)
    del cold
    if repeats > 1:
        cold_seconds = median_seconds(lambda: SOLVER.solve(probs, target), repeats, device)
    change_some(probs)
    warm_iterations = []

    def run_warm() -> None:
        warm_iterations.append(SOLVER.solve(probs, target, nu).iterations)

    warm_seconds = median_seconds(run_warm, repeats, device)
    return [
        f"{rows:,} x {classes:,}",
        f"{reference:.2f} s" if reference else "left out",
        f"{cold_seconds:.3f} s",
        f"{reference / cold_seconds:.0f} x" if reference else "",
        f"{warm_seconds:.3f} s",
        f"{summary[0]} / {warm_iterations[0]}",
        f"{summary[1]:.0e}" + (f" ({error:.0e})" if reference else ""),
        f"{extra / (4 * probs.numel()):.2f}" if device.type == "cuda" or probs.numel() >= 10**7 else "too small",
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="NxK")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, repeats {arguments.repeats}")
    heads = ["rows x classes", "reference", "cold", "speed-up", "warm", "iterations", "off", "memory"]
    print("".join(f"{head:>18}" for head in heads))
    for size in arguments.sizes:
        rows, classes = map(int, size.split("x"))
        line = measure(rows, classes, device, arguments.repeats)
        print("".join(f"{cell:>18}" for cell in line), flush=True)


if __name__ == "__main__":
    main()
