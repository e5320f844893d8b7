"""Write the plan of a training as YAML, with the reason of each setting as a comment."""

import shlex
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import yaml

from tailmatch.command_line.plan import UNLABELED_RATIO, Plan
from tailmatch.datamodules.class_names import printable


def text_of(plan: Plan, name: str) -> str:
    """Write a plan as YAML with comments.

    Args:
        plan: The plan.
        name: The name of the file, for the commands in its first lines.
    """
    run_dir = f"runs/{name.rpartition('/')[2].rpartition('.')[0] or name}"
    lines = [
        f"# Proposed by `tailmatch init` on {date.today()}. Change what you know better.",
        f"#   tailmatch fit --config {shlex.quote(name)}",
        f"#   tailmatch test --run_dir {shlex.quote(run_dir)} --ckpt_path best",
        "# The images:",
        *(f"#   {fact}" for fact in plan.facts),
        *_block({"run_dir": run_dir}),
        *_data(plan),
        *_model(plan),
        *_trainer(plan),
    ]
    return "\n".join(map(printable, lines)) + "\n"


def _data(plan: Plan) -> Iterator[str]:
    yield from ("data:", f"  class_path: {plan.source.class_path}", "  init_args:", *_block(plan.source.arguments, 4))
    yield f"    image_size: {plan.image_size[0]}  # {plan.image_size[1]}"
    yield "    on_bad_image: skip  # files that are no whole images are named and left out"
    yield from (f"    {each}: {share}  # a share of each class" for each, share in plan.holdouts.items())
    if plan.least is not None:
        yield f"    min_class_count: {plan.least[0]}  # {plan.least[1]}"
    yield "    class_counts:  # all labels are used"
    yield "      class_path: tailmatch.datamodules.LabeledFraction"
    yield "      init_args: {fraction: 1.0}"
    yield f"    labeled_batch_size: {plan.labeled_batch_size}"
    yield f"    unlabeled_ratio: {UNLABELED_RATIO}  # unlabeled images for each labeled one in a step, if any"
    yield f"    steps_per_epoch: {plan.steps_per_epoch}  # {plan.duration or 'not measured'}"


def _model(plan: Plan) -> Iterator[str]:
    yield from ("model:", f"  # {plan.method.why}")
    yield f"  class_path: tailmatch.lightning_modules.{plan.method.class_path}"
    yield from ("  init_args:", *_block(plan.method.arguments, 4))
    yield f"    ema_decay: {averaging(plan.steps_per_epoch * plan.epochs)}  # averages over a twentieth of the steps"
    yield from ("    network:", f"      # {plan.network.why}")
    yield f"      class_path: tailmatch.lightning_modules.networks.{plan.network.class_path}"
    yield f"      init_args: {_flow(plan.network.arguments)}"
    if plan.frozen:
        yield from ("    tune:", f"      # {plan.frozen}")
        yield "      class_path: tailmatch.lightning_modules.training.Tuning"
        yield "      init_args: {blocks: 0}"
        yield "    optimizer:"
        yield "      class_path: tailmatch.lightning_modules.training.FixMatchSGD"
        yield "      init_args: {lr: 0.1}  # a head alone takes larger steps than a whole network"


def _trainer(plan: Plan) -> Iterator[str]:
    yield from ("trainer:", f"  max_epochs: {plan.epochs}", f"  accelerator: {plan.device}", "  devices: 1")
    yield f"  log_every_n_steps: {min(50, max(1, plan.steps_per_epoch // 5))}"
    if plan.device == "gpu":
        yield "  precision: bf16-mixed"
    if plan.method.class_path == "ADELLO":
        yield "  callbacks+:"
        yield "    - class_path: tailmatch.callbacks.FlexDA"
        yield "      init_args: {momentum: 0.99}  # of the estimate; 0.999 is for trainings of many thousand steps"


def averaging(steps: int) -> float:
    """Choose the decay of the averaged weights for a number of steps: they average over a twentieth of it."""
    return round(1 - 1 / min(1000, max(10, steps / 20)), 4)


def _block(values: Mapping[str, Any], indent: int = 0) -> list[str]:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10_000) if values else ""
    return [" " * indent + line for line in text.splitlines()]


def _flow(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=10_000).strip()
