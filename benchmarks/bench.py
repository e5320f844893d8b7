"""Run the benchmarks of speed one after the other, and put what they print into `docs/performance.md`.

    python -m benchmarks.bench [--only step scale] [--page docs/performance.md]

The page has a place for each: a line `<!-- NAME -->` and, below, `<!-- end -->`. What is between them is replaced, and
begins with the machine. Nothing else should run meanwhile. Every ratio is measured in one run of one benchmark.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

import tailmatch
from tailmatch.callbacks.reports.run_facts import device_name
from tailmatch.datamodules.output_files import whole_file

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"

VIEWS = [("strong", 32, 448), ("strong", 96, 64), ("strong", 224, 32), ("simclr", 32, 448), ("simclr", 224, 32)]

BENCHMARKS: dict[str, list[list[str]]] = {
    "step": [["benchmarks.step"]],
    "methods": [["benchmarks.methods"]],
    "heap": [["benchmarks.heap"]],
    "launches": [["benchmarks.launches"]],
    "scale": [["benchmarks.scale"]],
    "chunks": [["benchmarks.chunks"]],
    "views": [
        ["benchmarks.views", "--view", view, "--size", str(size), "--batch-size", str(batch)]
        for view, size, batch in VIEWS
    ],
    "loading": [
        ["benchmarks.data_loading", "--made", "2000", "--size", "96"],
        ["benchmarks.data_loading", "--made", "300", "--size", "96", "--decoders"],
    ],
    "throughput": [["benchmarks.throughput"]],
    "start": [["benchmarks.start"]],
    "checkpoints": [["benchmarks.checkpoints"]],
    "prediction": [["benchmarks.gpu_prediction"]],
    "darp": [
        ["benchmarks.darp_solver", "--sizes", "10000x10", "1000000x10", "100000x100", "1000000x1000"],
        ["benchmarks.darp_step"],
    ],
}
"""The name of each place of the page, and the modules that are run for it, with their arguments."""


def machine() -> str:
    """Describe the machine and the versions in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = device_name(torch.device("cpu")).partition(", ")[0]
    system = f"{torch.backends.cpu.get_cpu_capability()}), {cores} cores, {platform.system()}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, tailmatch {tailmatch.__version__}"
    return f"*{date.today()}: {name} ({system}, {versions}*"


def output(words: list[str]) -> str:
    """Run a module, and return what it prints: a table as it is, and anything else as a block of code."""
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("Seed set to")]
    text, table = ("\n".join(line for line in lines if line.startswith("|") == wanted) for wanted in (False, True))
    if words[1:]:
        text = f"$ python -m {' '.join(words)}\n{text}"
    return "\n\n".join(part for part in (f"```\n{text}\n```" if text else "", table) if part)


def replaced(page: str, name: str, content: str) -> str:
    """Replace what is in a place of the page.

    Raises:
        SystemExit: The page has no such place.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    new, count = place.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    if count != 1:
        raise SystemExit(f"the page has no place <!-- {name} --> ... <!-- end -->")
    return new


def main() -> None:
    """Run the benchmarks, and renew the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    for name in options.only:
        begun = time.perf_counter()
        content = "\n\n".join([machine(), *map(output, BENCHMARKS[name])])
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        page = replaced(options.page.read_text(encoding="utf-8"), name, content)
        with whole_file(options.page) as file:
            file.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
