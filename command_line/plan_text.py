"""Write the plan of a training as YAML, with the reason of each setting as a comment."""

import shlex
from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

from tailmatch.command_line.plan import Plan
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
        "data:",
        f"  class_path: {plan.source.class_path}",
        "  init_args:",
        *_block(plan.source.arguments, 4),
        f"    image_size: {plan.image_size[0]}  # {plan.image_size[1]}",
        "    on_bad_image: skip  # files that are no whole images are named and left out",
        *(f"    {each}: {share}  # a share of each class" for each, share in plan.holdouts.items()),
    ]
    if plan.least is not None:
        lines += [f"    min_class_count: {plan.least[0]}  # {plan.least[1]}"]
    lines += [
        "    class_counts:  # all labels are used",
        "      class_path: tailmatch.datamodules.LabeledFraction",
        "      init_args: {fraction: 1.0}",
        f"    labeled_batch_size: {plan.labeled_batch_size}",
        f"    unlabeled_ratio: {plan.unlabeled_ratio}  # unlabeled images for each labeled one in a step, if any",
        f"    steps_per_epoch: {plan.steps_per_epoch}  # {plan.duration or 'not measured'}",
        "model:",
        f"  # {plan.method.why}",
        f"  class_path: tailmatch.lightning_modules.{plan.method.class_path}",
        "  init_args:",
        *_block(plan.method.arguments, 4),
        f"    ema_decay: {averaging(plan.steps_per_epoch * plan.epochs)}  # averages over a twentieth of the steps",
        "    network:",
        f"      # {plan.network.why}",
        f"      class_path: tailmatch.lightning_modules.networks.{plan.network.class_path}",
        f"      init_args: {_flow(plan.network.arguments)}",
    ]
    if plan.frozen:
        lines += [
            "    tune:",
            f"      # {plan.frozen}",
            "      class_path: tailmatch.lightning_modules.training.Tuning",
            "      init_args: {blocks: 0}",
            "    optimizer:",
            "      class_path: tailmatch.lightning_modules.training.FixMatchSGD",
            "      init_args: {lr: 0.1}  # a head alone takes larger steps than a whole network",
        ]
    lines += [
        "trainer:",
        f"  max_epochs: {plan.epochs}",
        f"  accelerator: {plan.device}",
        "  devices: 1",
        f"  log_every_n_steps: {min(50, max(1, plan.steps_per_epoch // 5))}",
    ]
    if plan.device == "gpu":
        lines += ["  precision: bf16-mixed"]
    if plan.method.class_path == "ADELLO":
        lines += [
            "  callbacks+:",
            "    - class_path: tailmatch.callbacks.FlexDA",
            "      init_args: {momentum: 0.99}  # of the estimate; 0.999 is for trainings of many thousand steps",
        ]
    return "\n".join(map(printable, lines)) + "\n"


def averaging(steps: int) -> float:
    """Choose the decay of the averaged weights for a number of steps: they average over a twentieth of it."""
    return round(1 - 1 / min(1000, max(10, steps / 20)), 4)


def _block(values: Mapping[str, Any], indent: int = 0) -> list[str]:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10_000) if values else ""
    return [" " * indent + line for line in text.splitlines()]


def _flow(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=10_000).strip()
