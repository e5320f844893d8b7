"""`tailmatch init`: look at a user's images, and propose the settings of a first training on them."""

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tailmatch.command_line.signals import SIGNALS
from tailmatch.datamodules.locks import sole_output

if TYPE_CHECKING:
    from tailmatch.command_line.plan import Choice, Plan, Source
    from tailmatch.command_line.step_times import StepTimes
    from tailmatch.datamodules.files.image_files import ImageFiles

MOST_MINUTES = 4 * 7 * 24 * 60

TABLES = (".csv", ".tsv", ".txt", ".parquet")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch init",
        description="Look at your images, say what is there, and write a YAML file with the settings of a first "
        "training: sizes, split, network, method, and a number of steps that fit in the time you have. All images are "
        "decoded once, into the cache that the training uses, and a few steps are run to see how long one takes.",
    )
    made.add_argument("images", help="A folder of images (train/<class>/ or <class>/), or a table of them (.csv, ...).")
    made.add_argument(
        "--output", type=Path, default=None, help="File to write (default: the name of the images, with .yaml)."
    )
    made.add_argument("--image_column", help="The column with the path of each image (default: it is looked for).")
    made.add_argument("--target_column", help="The column with the class of each image (default: it is looked for).")
    made.add_argument("--root", help="The folder that a table's paths are relative to (default: the table's folder).")
    made.add_argument("--unlabeled_root", help="A folder of further images, beside a table, that have no class.")
    made.add_argument("--image_size", type=int, help="The height and width of the images in pixels.")
    made.add_argument(
        "--network",
        help="The name of an architecture of timm, which needs the extra `timm` (default: EfficientNet-b0, or "
        "ResNet-50 on a GPU).",
    )
    made.add_argument("--weights", help="A file of the network's pretrained weights (default: they are downloaded).")
    made.add_argument("--minutes", type=float, default=10.0, help="How long the training may take (default: 10).")
    made.add_argument("--cache_dir", help="The folder of the cache (default: ~/.cache/tailmatch).")
    made.add_argument(
        "--overwrite", choices=("true", "false"), default="false", help="Replace an existing file (default: false)."
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch init`.

    Raises:
        MissingFileError: The file of weights does not exist.
        SettingsError: The output exists, or see `plan_for`.
    """
    asked = parser().parse_args(args)
    with SIGNALS.while_importing():  # only here, so that the help and a wrong argument take no seconds
        from tailmatch.command_line.plain_warnings import plain_warnings
        from tailmatch.command_line.plan_text import text_of
        from tailmatch.datamodules.arguments import MissingFileError, SettingsError, check_positive
        from tailmatch.datamodules.output_files import check_free, whole_file
    plain_warnings()
    check_positive("minutes", asked.minutes)
    if asked.minutes > MOST_MINUTES:
        raise SettingsError(f"minutes is {asked.minutes:g}; it must be at most {MOST_MINUTES:,}, four weeks")
    if asked.weights is not None and not Path(asked.weights).is_file():  # before all images are decoded
        raise MissingFileError(f"--weights is {asked.weights}, and there is no such file")
    output = asked.output or Path(f"{Path(asked.images).resolve().stem}.yaml")
    with sole_output(output):
        check_free(output, asked.overwrite == "true")
        plan = plan_for(asked)
        with whole_file(output) as partial:
            partial.write_text(text_of(plan, str(output)), encoding="utf-8")
    print(f"\nsettings: {output}\n  tailmatch fit --config {shlex.quote(str(output))}", flush=True)


def plan_for(asked: argparse.Namespace) -> "Plan":
    """Look at the images and propose all settings, and say both.

    Raises:
        SettingsError: The images cannot be read or are no data set; the message says what is there.
    """
    import torch

    from tailmatch.command_line.plan import image_size_for, networks_for, propose
    from tailmatch.datamodules.arguments import SettingsError
    from tailmatch.datamodules.class_names import printable
    from tailmatch.datamodules.files.survey import shorter_sides, survey

    device = "gpu" if torch.cuda.is_available() else "cpu"
    source = _source(asked)
    if asked.weights is not None:
        _check_weights(networks_for(device, 0, asked.network, asked.weights)[0], asked)
    data = _data(source, 32 if asked.image_size is None else asked.image_size)
    lists = data.list_files()
    sides = shorter_sides(data, lists).tolist()
    if not sides:
        raise SettingsError(f"{asked.images}: {_why_none(data.root, lists['train'].keys)}")
    size = image_size_for(sides, device)
    if asked.image_size is not None:
        size = asked.image_size, "as asked"
    data = _data(source, size[0])
    plan = propose(source, survey(data, lists), size, device)
    for line in plan.facts:
        print(printable(line), flush=True)
    plan = _timed(plan, asked)
    print(f"\nproposed: {plan.method.class_path}: {plan.method.why}")
    print(f"  {plan.network.class_path} {plan.network.arguments}: {plan.network.why}")
    if plan.frozen:
        print(f"  {plan.frozen}")
    print(f"  {plan.image_size[0]} pixels: {plan.image_size[1]}")
    if plan.least is not None:
        print(f"  {printable(plan.least[1])}")
    print(f"  {plan.duration}", flush=True)
    return plan


def _check_weights(network: "Choice", asked: argparse.Namespace) -> None:
    """Read the file of weights, before all images are decoded.

    Raises:
        SettingsError: The weights do not fit the network.
    """
    from tailmatch.datamodules.arguments import SettingsError
    from tailmatch.lightning_modules import networks

    try:
        getattr(networks, network.class_path)(2, **network.arguments)
    except SettingsError as error:
        if asked.network is not None:
            raise
        name = f"{network.class_path} {network.arguments['name']}"
        raise SettingsError(
            f"{error}\n  the network is {name}; weights of another one need its name in timm (--network NAME)"
        ) from error


def _why_none(root: Path, keys: Sequence[str]) -> str:
    """Say why none of the images can be read: they are elsewhere, or broken."""
    if keys and not (root / keys[0]).exists():
        return f"none of its images is there, such as {root / keys[0]}: give the folder of its paths with --root"
    return "none of its files is an image that can be read"


def _source(asked: argparse.Namespace) -> "Source":
    """Find out whether the images are in folders or in a table, and which columns a table has."""
    from tailmatch.command_line.plan import Source
    from tailmatch.datamodules.arguments import MissingFileError, SettingsError
    from tailmatch.datamodules.files.column_guess import guess_columns

    path, cache = Path(asked.images), {"cache_dir": asked.cache_dir} if asked.cache_dir else {}
    if not path.exists():
        raise MissingFileError(f"there is no {path}: give a folder of images, or a table of them ({', '.join(TABLES)})")
    if path.suffix.lower() not in TABLES or path.is_dir():
        typed = [name for name in ("image_column", "target_column", "root", "unlabeled_root") if vars(asked)[name]]
        if typed:
            raise SettingsError(
                f"--{typed[0]} is for a table, and {path} is none: its name ends in {', '.join(TABLES)}"
            )
        return Source("tailmatch.datamodules.ImageFolder", {"root": asked.images, **cache}, can_merge=False)
    columns = guess_columns(path, asked.image_column, asked.target_column)
    places = {name: vars(asked)[name] for name in ("root", "unlabeled_root") if vars(asked)[name]}
    arguments = {"table": asked.images, "image_column": columns.image, "target_column": columns.target}
    return Source("tailmatch.datamodules.ImageTable", {**arguments, **places, **cache}, can_merge=True)


def _data(source: "Source", image_size: int) -> "ImageFiles":
    from tailmatch import datamodules

    made = getattr(datamodules, source.class_path.rpartition(".")[2])
    data: ImageFiles = made(**source.arguments, image_size=image_size, on_bad_image="skip")
    return data


def _timed(plan: "Plan", asked: argparse.Namespace) -> "Plan":
    """Choose the first network whose weights can be had, what of it is trained, and the steps that fit in the time.

    Raises:
        SettingsError: The settings are wrong, or the file of weights cannot be read.
    """
    from tailmatch.command_line.plan import FEW_STEPS, networks_for, with_frozen
    from tailmatch.lightning_modules.checkpoints.weights import NotFetchedError

    networks = networks_for(plan.device, plan.image_size[0], asked.network, asked.weights)
    while True:
        plan = replace(plan, network=networks[0])
        try:
            plan, times = _tried(plan)
            break
        except Exception as error:
            missing = _cause(error, NotFetchedError)
            if missing is None or len(networks) == 1:
                raise
            print(f"  {missing} (--weights FILE)", flush=True)
            networks = networks[1:]
    _, whole = times.steps_in(60 * asked.minutes)
    if plan.network.is_pretrained and whole < FEW_STEPS:
        plan, times = _tried(with_frozen(plan, whole))
    epochs, steps = times.steps_in(60 * asked.minutes)
    seconds = steps * times.step + epochs * times.validation
    duration = f"a step takes {times.step:.3g} s here and a validation {times.validation:.3g} s: {seconds / 60:.1f} min"
    if seconds > 60 * asked.minutes:
        duration += f", more than the {asked.minutes:g} min asked for: one step and a validation are the least"
    return replace(plan, epochs=epochs, steps_per_epoch=steps // epochs, duration=duration)


def _tried(plan: "Plan") -> tuple["Plan", "StepTimes"]:
    """Run a few steps; with too little memory, of fewer images."""
    import torch

    from tailmatch.command_line.plan_text import text_of
    from tailmatch.command_line.step_times import time_steps

    while True:
        what = f"{plan.method.class_path} with {plan.network.class_path}{', its head alone' if plan.frozen else ''}"
        print(f"running a few steps of {what} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.yaml")
            config.write_text(text_of(plan, "config.yaml"), encoding="utf-8")
            try:
                return plan, time_steps(["--config", str(config)])
            except torch.OutOfMemoryError:
                if plan.labeled_batch_size == 1:
                    raise
        plan = replace(plan, labeled_batch_size=plan.labeled_batch_size // 2)


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Find an error of some kind among the causes of another; jsonargparse wraps those of the classes it makes."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    return found
