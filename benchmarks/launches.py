"""Count what a training step asks of a GPU: kernels, copies from the host, and waits. No GPU is needed.

    python -m benchmarks.launches [--methods FixMatch DARP]

A training runs on the pretended GPU of `tests/pretended_gpu.py`, and each operation that PyTorch dispatches to it
counts as one kernel, but for views of tensors and memory that is only allocated. On a GPU, a step cannot take less
than its launches do (a few microseconds each). The rows are those of `benchmarks.methods`, with the same batches and
CifarResNet-20; and, before them, the views, of 256 images. The counts are means over three steps without a log. They
depend on the number of images only through groups of images that happen to be empty.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.methods import Row, rows, trained
from benchmarks.replay import SIZE
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.views import RandomResizedCrop, SimCLRView, StrongView, View, WeakView
from tests.pretended_gpu import GPU, GPUTensor, PretendedGPU

aten = torch.ops.aten
NO_KERNEL = {aten.empty, aten.empty_strided, aten.new_empty, aten.empty_like, aten.detach, aten.lift_fresh, aten.alias}
STEPS = 4
"""The steps of each of two epochs; all but the first of the second are counted."""

COPIES = {aten._to_copy, aten.copy_}


class CountingGPU(PretendedGPU):
    """A pretended GPU that counts.

    Attributes:
        kernels: Operations on the GPU.
        copies: Copies from the host.
        bytes: The bytes of these copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.copies = self.bytes = 0

    def counts(self) -> Tensor:
        """Return kernels, copies, bytes and waits so far, `float64 [4]`.

        The batch itself comes from pinned memory where there is a GPU, and here with a wait, which does not count.
        """
        waits = sum("transfer_batch_to_device" not in wait.callers for wait in self.waits)
        return torch.tensor([self.kernels, self.copies, self.bytes, waits], dtype=torch.float64)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        packet, copied = func.overloadpacket, None
        if packet in COPIES and isinstance(result, GPUTensor):
            copied = args[1] if packet is aten.copy_ else args[0]
        leaves = torch.utils._pytree.tree_leaves((args, kwargs or {}, result))
        if isinstance(copied, Tensor) and not isinstance(copied, GPUTensor):
            self.copies += 1
            self.bytes += copied.numel() * copied.element_size()
        elif any(isinstance(leaf, GPUTensor) for leaf in leaves) and not (func.is_view or packet in NO_KERNEL):
            self.kernels += 1
        return result


class Counter(Callback):
    """Notes the counts after some steps."""

    def __init__(self, gpu: CountingGPU) -> None:
        self.gpu = gpu
        self.noted: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note them after the first and the last step of the count."""
        if trainer.global_step in (STEPS + 1, 2 * STEPS):
            self.noted.append(self.gpu.counts())

    def step(self) -> list[float]:
        """Return the mean counts of a step."""
        before, after = self.noted
        return list(((after - before) / (STEPS - 1)).tolist())


def of_view(view: View) -> list[float]:
    """Count what a view of a batch asks for; the images are on the GPU."""
    torch.manual_seed(0)
    images = torch.randint(256, (256, 3, SIZE, SIZE), dtype=torch.uint8)
    with CountingGPU() as gpu:
        there = images.to(GPU)
        before = gpu.counts()
        view(there)
        return list((gpu.counts() - before).tolist())


def of_step(row: Row, folder: Path) -> list[float]:
    """Count what a training step of a method asks for."""
    with CountingGPU() as gpu:
        counter = Counter(gpu)
        trained(
            row,
            folder,
            counter,
            steps=STEPS,
            network=partial(CifarResNet, depth=20),
            accelerator="auto",
            strategy=gpu.strategy(),
            log_every_n_steps=1000,
        )
    return counter.step()


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="names of methods and remedies; default: all")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    views: dict[str, Callable[[], View]] = {
        "weak view": WeakView, "strong view": StrongView, "random resized crop": RandomResizedCrop, "SimCLR": SimCLRView
    }  # fmt: skip
    found = {f"one {name}" if "view" in name else f"one view: {name}": of_view(view()) for name, view in views.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, row in rows(options.methods).items():
            found[name] = of_step(row, Path(folder))
    lines = ["| a step of | kernels | copies | bytes copied | waits |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {k:.0f} | {c:.1f} | {b:,.0f} | {w:.2g} |" for name, (k, c, b, w) in found.items()]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
