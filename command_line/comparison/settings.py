"""The settings of runs as flat text, and which of them tell the runs apart: the columns of a comparison."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailmatch.callbacks import _HOMES

TRAINER = (
    "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "precision", "accumulate_grad_batches",
    "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches", "limit_val_batches", "limit_test_batches",
    "overfit_batches", "val_check_interval", "check_val_every_n_epoch", "sync_batchnorm", "num_nodes",
)  # fmt: skip
"""Settings of the trainer that change what is learned or measured; the others say where a run computes and writes."""

PLACES = {"root", "cache_dir", "cache_budget_gb", "num_workers", "on_device", "eval_batch_size", "predict_set", "seed"}
"""Settings of the data that change neither the training nor the evaluation; the seed is no setting."""

SHOWING = re.compile(
    r"(pytorch_lightning|lightning)\..*(Monitor|ProgressBar|ModelSummary|ModelCheckpoint|Logger|StatsMonitor)"
)
"""Lightning's callbacks that show or save, and change nothing."""

FIRST = ("model", "callbacks", "data", "model.network")
"""Settings that become columns before all others."""

TITLES = {"model": "method"}

LONG = 32
"""The number of characters of a value that a table shows."""

NONE = "–"
"""What a table shows where there is no value."""


@dataclass
class Columns:
    """What tells runs apart.

    Attributes:
        titles: The heads of the columns.
        values: The values of each run, one for each column.
        beside: Names of further settings that all runs have and that differ with the columns, with their values; and of
            axes of a sweep on which all runs have one level.
    """

    titles: list[str]
    values: list[tuple[str, ...]]
    beside: list[tuple[str, list[str]]]


def flat_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Give the settings of method, data and training by name, as text; classes of this package by their short names."""
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    found = dict(_leaves("model", config.get("model")))
    data = config.get("data")
    found |= {name: text for name, text in _leaves("data", data) if name.rpartition(".")[2] not in PLACES}
    found |= dict(_callbacks(trainer.get("callbacks")))
    found |= {f"trainer.{name}": _text(trainer[name]) for name in TRAINER if name in trainer}
    if "devices" in trainer:
        found["trainer.devices"] = _number_of_devices(trainer["devices"])
    return found


def columns_of(settings: Sequence[Mapping[str, str]], seeds: Sequence[str]) -> Columns:
    """Find the settings that tell runs apart, as few of them as will do.

    A setting that only some of the runs have, with one value, is no difference: it belongs to a class of theirs, which
    is a difference itself, or another version of the package has it. A setting that follows from the columns before it
    becomes no column of its own.

    Args:
        settings: The settings of each run, as `flat_settings` gives them.
        seeds: The seed of each run, which paths may contain.
    """
    names = dict.fromkeys(name for each in settings for name in each)
    order = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    differing: dict[str, list[str | None]] = {}
    for name in order:
        values = without_seeds([each.get(name) for each in settings], seeds)
        if len({value for value in values if value is not None}) > 1:
            differing[name] = values
    chosen: list[str] = []
    groups: list[tuple[str, ...]] = [()] * len(settings)
    for name, values in differing.items():
        finer = _finer(groups, values)
        if len(set(finer)) > len(set(groups)):
            chosen.append(name)
            groups = finer
    if not chosen:  # one row, with the name of its method
        chosen = [next(iter(order), "model")]
        groups = [(each.get(chosen[0], NONE),) for each in settings]
    shared = {name: values for name, values in differing.items() if None not in values and name not in chosen}
    beside = [(name, list(dict.fromkeys(map(str, values)))) for name, values in shared.items()]
    columns = [_brief(column) for column in zip(*groups, strict=True)]
    return Columns(titles(chosen), list(zip(*columns, strict=True)), beside)


def _finer(groups: Sequence[tuple[str, ...]], values: Sequence[str | None]) -> list[tuple[str, ...]]:
    """Divide groups of runs by a setting; a run without it stays with those of its group, if they have one value."""
    known: dict[tuple[str, ...], set[str]] = {}
    for group, value in zip(groups, values, strict=True):
        known.setdefault(group, set()).update(() if value is None else (value,))
    only = {group: next(iter(each)) if len(each) == 1 else NONE for group, each in known.items()}
    return [(*group, only[group] if value is None else value) for group, value in zip(groups, values, strict=True)]


def _brief(values: Sequence[str]) -> list[str]:
    """Cut long values, such as lists and paths, if they can still be told apart."""
    names = [f"…/{value.rpartition('/')[2]}" if len(value) > LONG and "/" in value else value for value in values]
    cut = [name if len(name) <= LONG else f"{name[: LONG - 1]}…" for name in names]
    return cut if len(set(cut)) == len(set(values)) else list(values)


def without_seeds(values: Sequence[str | None], seeds: Sequence[str]) -> list[str | None]:
    """Replace the seed in paths, such as that of a teacher, if the runs then agree with each other more than before.

    Digits of a longer number, such as the 0 of a rate of 0.1, are no seed.
    """
    replaced = list(values)
    for place, (value, seed) in enumerate(zip(values, seeds, strict=True)):
        if value and "/" in value and seed:
            replaced[place] = re.sub(rf"(?<!\d)(?<!\d\.){re.escape(seed)}(?!\.?\d)", "{seed}", value)
    return replaced if len(set(replaced)) < len(set(values)) else list(values)


def titles(names: Sequence[str]) -> list[str]:
    """Shorten names of settings to their last parts, as far as these differ; those of a callback keep its name."""
    shortened = []
    for name in names:
        parts = name.split(".")
        others = [other.split(".") for other in names if other != name]
        least = 1 if parts[0] in ("model", "data", "trainer") else 2
        lengths = range(least, len(parts))
        length = next((n for n in lengths if all(other[-n:] != parts[-n:] for other in others)), len(parts))
        shortened.append(TITLES.get(name, ".".join(parts[-length:])))
    return shortened


def class_name(path: str) -> str:
    """Name a class of this package by its short name, and any other by its path."""
    return path.rpartition(".")[2] if path.startswith("tailmatch.") else path


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a value; of a class its name, and then the values of its arguments."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        yield name, class_name(value["class_path"])
        arguments = value.get("init_args")
        for key, inner in arguments.items() if isinstance(arguments, dict) else ():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, _text(value)


def _callbacks(listed: Any) -> Iterator[tuple[str, str]]:
    """Yield the callbacks that change a training as one value, and then their arguments by the name of their class."""
    items = listed if isinstance(listed, list) else [listed] if listed else []
    named = []
    for item in items:
        path = item.get("class_path") if isinstance(item, dict) else item
        if not isinstance(path, str) or _only_shows(path):
            continue
        named.append(class_name(path))
        for name, text in _leaves(named[-1], item):
            if name != named[-1]:
                yield name, text
    yield "callbacks", " + ".join(named) or "none"


def _only_shows(path: str) -> bool:
    home = _HOMES.get(path.rpartition(".")[2], "") if path.startswith("tailmatch.") else ""
    return home.startswith(("tailmatch.callbacks.reports.", "tailmatch.callbacks.writers.")) or bool(
        SHOWING.match(path)
    )


def _number_of_devices(devices: Any) -> str:
    """Count devices that are listed by number, so that runs on the first and the second GPU are alike."""
    if isinstance(devices, str) and "," in devices:
        devices = [each for each in devices.split(",") if each.strip()]
    return str(len(devices)) if isinstance(devices, list) else _text(devices)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else str(value)
