"""The help of a command: what users of this package need first, then the options of Lightning's trainer."""

import inspect
from collections.abc import Iterator
from typing import Any

from pytorch_lightning import Callback

from tailmatch import callbacks, datamodules, lightning_modules
from tailmatch.command_line.parser import Parser
from tailmatch.command_line.resume import HELP, HELP_FOR_FIT
from tailmatch.datamodules import ImageDataModule
from tailmatch.lightning_modules import ImageClassifier, SemiSupervisedClassifier

USAGE = "tailmatch {} [--config FILE] [--model METHOD] [--data DATA] [--run_dir FOLDER] [option ...]"

DESCRIPTIONS = {
    "fit": "Train a method on a data set.",
    "validate": "Evaluate a checkpoint on the validation images.",
    "test": "Evaluate a checkpoint on the test images.",
    "predict": "Write predictions or pseudo-labels of a checkpoint to a file.",
}

EXAMPLES = {
    "fit": """\
  tailmatch fit --config demo.yaml
  tailmatch fit --config cifar10_lt.yaml --config fixmatch.yaml --run_dir runs/first
  tailmatch fit --run_dir runs/first --ckpt_path last                continue a run
""",
    "validate": "  tailmatch validate --run_dir runs/first --ckpt_path best\n",
    "test": "  tailmatch test --run_dir runs/first --ckpt_path best\n",
    "predict": """\
  tailmatch predict --run_dir runs/first --ckpt_path best
  tailmatch predict --ckpt_path runs/first/checkpoints/best.ckpt --data UnlabeledImages --data.root photos
""",
}

MORE = """\
  tailmatch {0} --model.help FixMatch          the options of a method
  tailmatch {0} --data.help ImageFolder        the options of a data set
  tailmatch {0} --trainer.callbacks.help DARP  the options of a remedy or a report
  tailmatch configs                            the configurations that --config knows by name
"""

BASES = (ImageClassifier, SemiSupervisedClassifier, ImageDataModule)
"""Classes to derive from, which are no choice themselves."""

TITLES = ("method", "data", "checkpoints of the run, in RUN_DIR/checkpoints", "Lightning's trainer")


def arrange_help(parser: Parser, command: str) -> None:
    """Put the options of this package first, name what can be chosen, and add examples.

    Args:
        parser: The parser of a command, with all its arguments.
        command: `fit`, `validate`, `test` or `predict`.
    """
    parser.usage = USAGE.format(command)
    parser.description = DESCRIPTIONS[command]
    parser.examples = f"\nexamples:\n{EXAMPLES[command]}\nmore help:\n{MORE.format(command)}"
    actions = {action.dest: action for action in parser._actions}
    actions[
        "config"
    ].help = "YAML file, or the name of a configuration of this package (`tailmatch configs` lists them)."
    actions["ckpt_path"].help = HELP + (HELP_FOR_FIT if command == "fit" else "")
    _offer(actions["model"], "The method, and its options.", lightning_modules, ImageClassifier)
    _offer(actions["data"], "The data set, and its options.", datamodules, ImageDataModule)
    _offer(actions["trainer.callbacks"], "Remedies and reports, one or a list.", callbacks, Callback)
    actions["seed_everything"].help = "Seed of the split, the weights, the views and all else; true draws one."
    actions["weights_only"].help = "Leave it out: checkpoints are always read as tensors and plain values."
    options, trainer, *rest = parser._action_groups[1:]  # after the positional arguments; the last are of the command
    *ours, linked, command_group = rest
    options._group_actions += command_group._group_actions
    parser._action_groups = [parser._action_groups[0], options, *ours, trainer]
    for group, title in zip((*ours, trainer), TITLES, strict=True):
        group.title = title


def _offer(action: Any, text: str, package: Any, base: type) -> None:
    """Name the classes of a package that an option takes, in place of all that is derived from its base."""
    names = ", ".join(choices(package, base))
    action.help = f"{text} One of {names}; or the path of another class, as in mymodule.MyClass."
    action.extra_help = str


def choices(package: Any, base: type) -> Iterator[str]:
    """Yield the names of the public classes of a package that a user may choose."""
    for name in package.__all__:
        public = getattr(package, name)
        if (
            inspect.isclass(public)
            and issubclass(public, base)
            and public not in BASES
            and not inspect.isabstract(public)
        ):
            yield name
