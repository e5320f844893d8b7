"""Measure the package on one GPU, in at most ten minutes and without a network.

    bash benchmarks/gpu.sh [FILE]
    python -m benchmarks.gpu [--out FILE] [--parts FixMatch DARP] [--seconds 12] [--limit 560]
    python -m benchmarks.gpu --device cpu --seconds 1 --batch-size 2 --images 100 --small    # to try the program

Each part is a process of its own (see PARTS). One that fails, or for which no time is left, is named, and the next one
begins. The file has what was measured so far at any time.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

import tailmatch

TRAININGS = ("FixMatch", "MixMatch", "SimPro", "DDP", "compiled")
PARTS = (*TRAININGS[:3], "profile", "DARP", "chunks", *TRAININGS[3:])
"""The parts, in their order."""

HEADER = """\
| method | precision | ms a step | images/s | utilization | memory (GB) | hours to 2^20 steps | to 250,000 |
|---|---|---:|---:|---:|---:|---:|---:|
"""


def run_part(name: str, options: argparse.Namespace) -> None:
    """Measure a part in this process."""
    from benchmarks import gpu_steps
    from benchmarks.gpu_training import Setting

    setting = Setting(options.device, options.seconds, options.batch_size, options.images, options.small)
    few = ["TF32", "bf16-mixed"]
    parts: dict[str, Callable[[Setting], None]] = {
        "FixMatch": lambda it: gpu_steps.rows("FixMatch", list(gpu_steps.PRECISIONS), it),
        "MixMatch": lambda it: gpu_steps.rows("MixMatch", few, it),
        "SimPro": lambda it: gpu_steps.rows("SimPro", few, it),
        "DDP": gpu_steps.one_process_ddp,
        "compiled": gpu_steps.compiled,
        "profile": gpu_steps.profiled,
    }
    parts[name](setting)


def command(name: str, options: argparse.Namespace) -> list[str]:
    """Return the command of a part."""
    if name == "DARP":
        sizes = ["1000x10"] if options.small else ["1000000x100", "1000000x1000"]
        return ["benchmarks.darp_solver", "--device", options.device, "--repeats", "3", "--sizes", *sizes]
    if name == "chunks":
        return ["benchmarks.chunks", "--device", options.device, "--batch-size", str(options.batch_size), "--rounds=9"]
    words = [f"--device={options.device}", f"--seconds={options.seconds}", f"--batch-size={options.batch_size}"]
    words += [f"--images={options.images}", *(["--small"] if options.small else [])]
    return ["benchmarks.gpu", "--part", name, *words]


def measured(name: str, options: argparse.Namespace, left: float) -> str:
    """Run a part, and return what it printed, with a line on how it failed."""
    if left <= 0:
        return f"{name}: left out, as no time is left\n"
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command(name, options)], capture_output=True, text=True, check=False, timeout=left
        )
        printed, failure = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired as stopped:
        printed = (stopped.stdout or b"").decode() if isinstance(stopped.stdout, bytes | None) else stopped.stdout
        failure = [f"stopped, as only {left:.0f} s were left"]
    lines = [line for line in printed.splitlines() if not line.startswith("Seed set")]
    if name == "DARP":
        lines = ["```", *lines, "```"]
    return "\n".join([*lines, *(f"\n{name} failed: {reason}" for reason in failure)]) + "\n"


def machine(device: str) -> str:
    """Describe the machine and the versions in one line."""
    name = torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else platform.processor()
    versions = f"torch {torch.__version__}, tailmatch {tailmatch.__version__}"
    return f"{date.today()}: {name or device}, {versions}"


def page(found: dict[str, str], options: argparse.Namespace, begun: float) -> str:
    """Lay out what was measured so far."""
    table = HEADER + "".join(found[name] for name in TRAININGS if name in found)
    others = "\n".join(f"{found[name]}" for name in PARTS if name in found and name not in TRAININGS)
    whole = f"{machine(options.device)}; {time.monotonic() - begun:.0f} s in all\n"
    return "\n".join([whole, table, others])


def parsed() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write; default: only print")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=12, help="timed seconds of each training (default: 12)")
    parser.add_argument("--limit", type=float, default=560, help="seconds in all (default: 560)")
    parser.add_argument("--batch-size", type=int, default=64, help="labeled images of a batch (default: 64)")
    parser.add_argument("--images", type=int, default=50_000, help="images of the data set (default: 50,000)")
    parser.add_argument("--small", action="store_true", help="a small network and a small matrix, to try the program")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write the file anew after each part."""
    begun, options = time.monotonic(), parsed()
    if options.part:
        run_part(options.part, options)
        return
    found: dict[str, str] = {}
    for name in options.parts:
        found[name] = measured(name, options, options.limit - (time.monotonic() - begun))
        print(f"{name}:\n{found[name]}", flush=True)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(page(found, options, begun), encoding="utf-8")


if __name__ == "__main__":
    main()
