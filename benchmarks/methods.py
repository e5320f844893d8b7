"""Measure a training step of every method and remedy against its own bare arithmetic and the usual way in PyTorch.

    python -m benchmarks.methods [--methods FlexMatch DARP] [--rounds 1] [--again 2] [--steps 3]

The rows are `METHODS` and `REMEDIES` of `tests/contract.py`, so that a new method joins by itself; a remedy is measured
with FixMatch, or with the first method that it works with. All have the same network (WRN-28-2), images of 32 pixels
and batches. Arguments are the defaults, but for those of the contract that say when a method begins to act and from
which confidence on: all act in the second epoch. Each round times, for each row in turn,

* ours: the steps of the second epoch of a training but the first, in which a companion labels images. A step is all of
  it: loading, views, forward and backward passes, optimizer and averages;
* bare: the same passes, backward pass, optimizer and average on tensors that lie there (`benchmarks/replay.py`);
* usual: the same, with images from loaders with two workers each, which make the same views with Pillow or torchvision,
  and an average that is updated parameter by parameter.

That bare and ours pass the same images is checked each time. Rows whose ratio to the bare arithmetic is unusual are
measured again, since something else may have run meanwhile. The table, in Markdown, has medians over all measurements
of the medians over steps:

* seconds of our step, and its ratio to the bare arithmetic; the ratio of the usual way to the bare arithmetic; and the
  ratio of our step to FixMatch's;
* images that pass through a network in a step with gradient, and without, as means over the steps;
* trained parameters, and the kilobytes of tensors in a checkpoint beside weights, their averages, the statistics of
  BatchNorm and the optimizer. State that is kept for each image is that of the printed numbers of images.
"""

import argparse
import io
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from torch import nn

from benchmarks.replay import SIZE, Recorder, Replay
from tailmatch.datamodules import InMemory, ListedCounts
from tailmatch.lightning_modules import FixMatch, ImageClassifier
from tailmatch.lightning_modules.networks import NetworkFactory, WideResNet
from tailmatch.lightning_modules.training.finite import tensors_in
from tailmatch.lightning_modules.training.heap import keep_freed_memory
from tests.contract import METHODS, NO_REMEDY, REMEDIES, entry, source_checkpoint

CLASSES = 10
LABELED, UNLABELED = [50, 30, 18, 11, 6, 4, 2, 1, 1, 1], [400, 240, 144, 86, 52, 31, 19, 11, 7, 4]
KEPT = ("warmup", "start", "epochs", "threshold")
"""What the names of the contract's arguments contain that are kept, beside `every`: they make a method act early."""

USUAL = 0.95, 1.10
"""The ratios to the bare arithmetic that are not measured again."""

Row = tuple[type[ImageClassifier], str]


@dataclass(frozen=True)
class Measured:
    """What one round measured of a row.

    Attributes:
        ours: Seconds of a step of the training.
        bare: Seconds of its bare arithmetic.
        usual: Seconds of the usual way.
        images: Images that pass in a step, with gradient and without.
        parameters: Number of trained parameters.
        state: Bytes of the state.
    """

    ours: float
    bare: float
    usual: float
    images: list[float]
    parameters: int
    state: int


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
    steps: int,
    network: NetworkFactory = WideResNet,
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


def measure(row: Row, folder: Path, options: argparse.Namespace) -> Measured:
    """Train a row, then replay the last step of the training in both ways."""
    recorder, sizes = Recorder(), {"batch_size": options.batch_size, "unlabeled_ratio": options.unlabeled_ratio}
    place = {"accelerator": options.accelerator, "devices": 1}
    trainer = trained(row, folder, recorder, steps=options.steps + 1, **sizes, **place)
    model = trainer.lightning_module
    trainer.save_checkpoint(folder / "end.ckpt")
    parameters, state = count_trained(model), state_bytes(model, folder / "end.ckpt")
    before, *steps = recorder.steps[-options.steps - 1 :]
    replay = Replay(trainer, steps[-1])
    replay.check(recorder)
    recorder.remove()
    ours = [step.ended - last.ended for last, step in zip([before, *steps], steps, strict=False)]
    ways = ours, replay.bare(options.steps), replay.usual(options.steps, options.workers)
    images = [statistics.mean(column) for column in zip(*(step.images for step in steps), strict=True)]
    return Measured(*map(statistics.median, ways), images, parameters, state)


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


def of_bare(measured: list[Measured]) -> float:
    """Compute the ratio of our step to the bare arithmetic."""
    return statistics.median(each.ours / each.bare for each in measured)


def table(found: Mapping[str, list[Measured]]) -> str:
    """Lay out the table."""
    lines = [
        "| method | seconds | of its bare arithmetic | the usual way | of FixMatch | images with gradient | without | "
        "parameters | state (kB) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    seconds = {name: statistics.median(each.ours for each in measured) for name, measured in found.items()}
    for name, measured in found.items():
        usual = statistics.median(each.usual / each.bare for each in measured)
        first = measured[0]
        with_gradient, without = first.images
        lines.append(
            f"| {name} | {seconds[name]:.3f} | {of_bare(measured):.2f} | {usual:.2f} | "
            f"{seconds[name] / seconds['FixMatch']:.2f} | {with_gradient:g} | {without:g} | {first.parameters:,} | "
            f"{first.state / 1e3:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="names of methods and remedies; default: all")
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each row (default: 1)")
    parser.add_argument(
        "--again", type=int, default=2, help=f"further trainings of rows out of {USUAL[0]} to {USUAL[1]} (default: 2)"
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each way in a round (default: 3)")
    parser.add_argument("--batch-size", type=int, default=16, help="labeled images of a batch (default: 16)")
    parser.add_argument("--unlabeled-ratio", type=int, default=2, help="unlabeled images for each (default: 2)")
    parser.add_argument("--accelerator", default="cpu", help="cpu or gpu (default: cpu)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes of a loader of the usual way (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command line does
    warnings.simplefilter("ignore")  # of Lightning, on logging and loaders
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    chosen = rows(options.methods)
    found: dict[str, list[Measured]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, row in chosen.items():
                found[name].append(measure(row, Path(folder), options))
        unusual = [name for name in chosen if not USUAL[0] <= of_bare(found[name]) <= USUAL[1]]
        for _ in range(options.again):
            for name in unusual:
                found[name].append(measure(chosen[name], Path(folder), options))
    print(
        f"{options.accelerator}, {options.threads} threads; {options.batch_size} labeled and "
        f"{options.batch_size * options.unlabeled_ratio} unlabeled images a step, {sum(LABELED)} and {sum(UNLABELED)} "
        f"in all; {options.rounds} rounds of {options.steps} steps, and {options.again} more of {len(unusual)} rows"
    )
    print(table(found))


if __name__ == "__main__":
    main()
