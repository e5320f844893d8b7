"""Measure what a training step of every method and remedy costs, against one of FixMatch.

    python -m benchmarks.methods [--methods FlexMatch DARP] [--rounds 3]

The rows are `METHODS` and `REMEDIES` of `tests/contract.py`, so that a new method joins by itself; a remedy is measured
with FixMatch, or with the first method that it works with. All have the same network (CifarResNet-20), images of 32
pixels and batches. Arguments are the defaults, but for those of the contract that say when a method begins to act and
from which confidence on: all act in the second epoch. Each round trains each row for two epochs, in turn, and times ten
steps of the second, with one refinement of DARP. A step is all of it: loading, views, forward and backward passes,
optimizer and averages. What happens between epochs, such as a labeling of all images, is left out.

The table, in Markdown, has medians over rounds:

* time of the processor (that of all threads) and of the clock, divided by FixMatch's in the same round;
* images that pass through a network in a step with gradient, and without;
* what these explain: a pass with gradient costs about three without (forward, and twice as much backward), so that a
  row has (3 with + without), divided by FixMatch's;
* trained parameters, and the kilobytes of tensors in a checkpoint beside weights, their averages, the statistics of
  BatchNorm and the optimizer. State that is kept for each image is that of the printed numbers of images.

Times under load are too long, and their ratios are not: rounds alternate.
"""

import argparse
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from tailmatch.datamodules import InMemory, ListedCounts
from tailmatch.lightning_modules import FixMatch, ImageClassifier
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.training.finite import tensors_in
from tests.contract import METHODS, NO_REMEDY, REMEDIES, entry, source_checkpoint

CLASSES, SIZE = 10, 32
STEPS = 10
"""Number of steps that are timed; an epoch has one more."""
BEGIN = STEPS + 2
"""The step after whose end they begin: the first of the second epoch."""
LABELED, UNLABELED = [50, 30, 18, 11, 6, 4, 2, 1, 1, 1], [400, 240, 144, 86, 52, 31, 19, 11, 7, 4]
KEPT = ("warmup", "start", "epochs", "threshold")
"""What the names of the contract's arguments contain that are kept, beside `every`: they make a method act early."""

Row = tuple[type[ImageClassifier], str]
network = partial(CifarResNet, depth=20)


class Meter(Callback):
    """Measures the last ten steps of a training.

    Attributes:
        images: Images that passed through a network in these steps, with gradient and without.
    """

    def __init__(self) -> None:
        self.images = [0, 0]
        self._times = [(0.0, 0.0)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count images where they enter a network, also a copy of it: at each convolution of three channels."""
        for module in pl_module.modules():
            if isinstance(module, nn.Conv2d) and module.in_channels == 3:
                module.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images[not torch.is_grad_enabled()] += len(inputs[0])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note the time at both ends. The first step of an epoch is left out, in which a companion labels images."""
        if trainer.global_step not in (BEGIN, BEGIN + STEPS):
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._times.append((time.process_time(), time.perf_counter()))
        if trainer.global_step == BEGIN:
            self.images = [0, 0]

    def step(self) -> tuple[float, float]:
        """Return the seconds of a step, of the processor and of the clock."""
        before, after = self._times[-2:]
        return (after[0] - before[0]) / STEPS, (after[1] - before[1]) / STEPS


def acting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Select the arguments without which a method or remedy would not act within a short training."""
    return {name: value for name, value in arguments.items() if name == "every" or any(word in name for word in KEPT)}


def short(make: Callable[[], Any]) -> Any:
    """Make a callback of the contract with its defaults, but for what makes it act; one without keywords as it is."""
    if not isinstance(make, partial):
        return make()
    kept = acting(make.keywords)
    return make.func(**kept) if kept else make.func()


def trained(
    row: Row,
    folder: Path,
    *callbacks: Callback,
    steps: int = STEPS + 1,
    batch_size: int = 16,
    unlabeled_ratio: int = 2,
    **trainer: Any,
) -> Trainer:
    """Train a row for two epochs of some steps, and return the trainer."""
    kind, remedy = row
    seed_everything(0, verbose=False)
    pixels = torch.randint(256, (sum(LABELED) + sum(UNLABELED), 3, SIZE, SIZE), dtype=torch.uint8)
    targets = torch.arange(CLASSES).repeat_interleave(torch.tensor(LABELED) + torch.tensor(UNLABELED))
    data = InMemory(
        pixels,
        targets,
        class_counts=ListedCounts(LABELED, UNLABELED),
        labeled_batch_size=batch_size,
        unlabeled_ratio=unlabeled_ratio,
        steps_per_epoch=steps,
    )
    begin = {"checkpoint": source_checkpoint(folder, network)} if entry(kind).begins_with_checkpoint else {}
    model = kind(CLASSES, network=network, **acting(entry(kind).arguments), **begin)
    remedies = [] if remedy == NO_REMEDY else [short(REMEDIES[remedy].make)]
    made = Trainer(
        max_epochs=2,
        default_root_dir=folder,
        callbacks=[*(short(make) for make in entry(kind).companions), *remedies, *callbacks],
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    )
    with redirect_stdout(io.StringIO()):  # what methods say of their images
        made.fit(model, data)
    return made


def train(row: Row, folder: Path, options: argparse.Namespace) -> tuple[Meter, dict[str, float]]:
    """Train a row, and return its meter, its trained parameters, and the bytes of its state."""
    meter, place = Meter(), {"accelerator": options.accelerator, "devices": 1}
    sizes = {"batch_size": options.batch_size, "unlabeled_ratio": options.unlabeled_ratio}
    trainer = trained(row, folder, meter, **sizes, **place)
    trainer.save_checkpoint(folder / "end.ckpt")
    model = trainer.lightning_module
    return meter, {"parameters": count_trained(model), "state": state_bytes(model, folder / "end.ckpt")}


def count_trained(model: nn.Module) -> int:
    """Count the parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def state_bytes(model: nn.Module, file: Path) -> int:
    """Count the bytes of the tensors in a checkpoint that belong to the method's or a callback's state."""
    checkpoint = torch.load(file, weights_only=True)
    weights = {name for name, _ in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            weights |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers()}
    state = {name: value for name, value in checkpoint["state_dict"].items() if name not in weights}
    tensors = tensors_in([state, checkpoint["callbacks"]]).values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rows(names: list[str] | None) -> dict[str, Row]:
    """List the rows, FixMatch first, that have one of these names; None takes all."""
    found: dict[str, Row] = {"FixMatch": (FixMatch, NO_REMEDY)}
    found |= {method.__name__: (method, NO_REMEDY) for method in METHODS}
    for name, remedy in REMEDIES.items():
        method = next(method for method in [FixMatch, *METHODS] if remedy.works_with(method))
        found[f"{method.__name__} + {name}"] = (method, name)
    chosen = [name for name, row in found.items() if names is None or row[1] in names or name in names]
    return {name: found[name] for name in dict.fromkeys(["FixMatch", *chosen])}


def table(meters: Mapping[str, list[Meter]], sizes: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out the table."""
    lines = [
        "| method | processor | clock | images with gradient | without | explained | parameters | state (kB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    own = meters["FixMatch"]
    for name, measured in meters.items():
        pairs = [zip(meter.step(), base.step(), strict=True) for meter, base in zip(measured, own, strict=True)]
        ratios = [[value / of_base for value, of_base in pair] for pair in pairs]
        processor, clock = (statistics.median(column) for column in zip(*ratios, strict=True))
        with_gradient, without = (count / STEPS for count in measured[0].images)
        explained = (3 * with_gradient + without) / ((3 * own[0].images[0] + own[0].images[1]) / STEPS)
        size = sizes[name]
        lines.append(
            f"| {name} | {processor:.2f} | {clock:.2f} | {with_gradient:g} | {without:g} | {explained:.2f} | "
            f"{size['parameters']:,.0f} | {size['state'] / 1e3:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="names of methods and remedies; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each row (default: 3)")
    parser.add_argument("--batch-size", type=int, default=16, help="labeled images of a batch (default: 16)")
    parser.add_argument("--unlabeled-ratio", type=int, default=2, help="unlabeled images for each (default: 2)")
    parser.add_argument("--accelerator", default="cpu", help="cpu or gpu (default: cpu)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # of Lightning, on logging and loaders
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    chosen = rows(options.methods)
    meters: dict[str, list[Meter]] = {name: [] for name in chosen}
    sizes: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, row in chosen.items():
                meter, sizes[name] = train(row, Path(folder), options)
                meters[name].append(meter)
    step = 1e3 * statistics.median(meter.step()[1] for meter in meters["FixMatch"])
    print(
        f"{options.accelerator}, {options.threads} threads; {options.batch_size} labeled and "
        f"{options.batch_size * options.unlabeled_ratio} unlabeled images a step, {sum(LABELED)} and {sum(UNLABELED)} "
        f"in all; a step of FixMatch takes {step:.1f} ms; {options.rounds} rounds"
    )
    print(table(meters, sizes))


if __name__ == "__main__":
    main()
