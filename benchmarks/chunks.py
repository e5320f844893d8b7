"""Time MixMatch's interleaved chunks against one pass of all mixed images.

    python -m benchmarks.chunks [--batch-size 64] [--chunks 3] [--rounds 5] [--threads 2] [--device cpu]

WRN-28-2 at 32 pixels, forward and backward pass of `chunks` times `batch-size` images, in three ways:

* chunks: one pass after the other, each normalized by its own statistics, as MixMatch does;
* split: one pass, in which `SplitBatchNorm2d` normalizes each chunk by its own statistics;
* one: one pass, normalized by the statistics of all images (`interleaved: false`).

Each round times the three in turn. The median of each, its ratio to the chunks, and its largest difference of a logit
from theirs are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from tailmatch.lightning_modules.networks import WideResNet
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tailmatch.lightning_modules.networks.split_norm import split_batch_norm

Pass = Callable[[Tensor], Tensor]


def ways(chunks: int, device: str) -> dict[str, Pass]:
    """Return the three ways to compute the logits `[B, 10]` of images `[B, 3, 32, 32]`, chunk after chunk."""
    torch.manual_seed(0)
    network = WideResNet(10).to(device)
    split = deepcopy(network)
    split_batch_norm(split, chunks)

    def in_chunks(images: Tensor) -> Tensor:
        first, *others = images.chunk(chunks)
        logits = [network(first)]
        with running_statistics_kept(network):
            return torch.cat([*logits, *map(network, others)])

    def in_one_split(images: Tensor) -> Tensor:  # a part is every third image of three chunks
        logits = split(images.unflatten(0, (chunks, -1)).transpose(0, 1).flatten(0, 1))
        return logits.unflatten(0, (-1, chunks)).transpose(0, 1).flatten(0, 1)

    return {"interleaved chunks": in_chunks, "one pass, split normalization": in_one_split, "one pass": network}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64, help="images of a chunk (default: 64)")
    parser.add_argument("--chunks", type=int, default=3, help="a labeled batch and two views (default: 3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    passes = ways(options.chunks, options.device)
    images = torch.rand(options.chunks * options.batch_size, 3, 32, 32, device=options.device)
    logits = {name: way(images).detach().cpu() for name, way in passes.items()}  # and the device is done
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(options.rounds):
        for name, way in passes.items():
            begun = time.perf_counter()
            way(images).logsumexp(1).mean().backward()
            if options.device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - begun)
    base, *_ = passes
    print(f"| {options.chunks} x {options.batch_size} mixed images | seconds | of the chunks | largest difference |")
    print("|---|---:|---:|---:|")
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times[base], strict=True))
        difference = (logits[name] - logits[base]).abs().max()
        print(f"| {name} | {statistics.median(taken):.3f} | {ratio:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
