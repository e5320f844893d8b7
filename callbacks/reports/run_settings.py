"""The settings of a run as a flat list: what differs from defaults, and what everybody asks for."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from pytorch_lightning import Trainer

from tailmatch.callbacks.checkpoints import Checkpoints
from tailmatch.lightning_modules.inference.class_paths import public_class, public_path

MAIN = ("lr", "max_epochs", "max_steps", "image_size", "labeled_batch_size", "unlabeled_ratio", "steps_per_epoch")
"""Last parts of the names of settings that are shown although they may be defaults."""

PARTS = ("data", "model", "trainer", "checkpoint")
"""The parts of a configuration that are settings of the run."""

OF_TRAINING = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val", "callbacks")
"""Settings of the trainer that change what is learned."""

OURS = {"use_distributed_sampler": False, "num_sanity_val_steps": 0, "enable_model_summary": False}
"""Defaults of the trainer that the command line sets."""

TRAINER = {name: parameter.default for name, parameter in inspect.signature(Trainer.__init__).parameters.items()} | OURS


def main_settings(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """List what says how a run was made: the seed, classes, arguments that are not defaults, and those of `MAIN`.

    Defaults are looked up in classes of this package, and in others that are imported already; nothing is imported.

    Args:
        settings: The configuration of the run.

    Returns:
        Names such as `model.network.depth`, and values as text.
    """
    found = [("seed_everything", settings["seed_everything"])] if "seed_everything" in settings else []
    defaults = {"trainer": TRAINER, "checkpoint": vars(Checkpoints())}
    for part in PARTS:
        found += _entries(part, settings.get(part), defaults.get(part, {}))
    return [(name, _text(value)) for name, value in found]


def all_settings(settings: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """Flatten the settings of method, data and training to plain values by name; lists become text, None is left out.

    Args:
        settings: The configuration of the run.
    """
    trainer = settings.get("trainer") or {}
    parts = {name: settings.get(name) for name in ("seed_everything", "data", "model")}
    parts["trainer"] = {name: trainer.get(name) for name in OF_TRAINING}
    leaves = [leaf for part, value in parts.items() for leaf in _leaves(part, value)]
    return {name: _plain(value) for name, value in leaves if value is not None}


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "true" if value is True else "false" if value is False else str(value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value below a setting; a class is the value of its own name."""
    if not isinstance(value, dict):
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                yield from _leaves(f"{name}.{number}", item)
        else:
            yield name, value
        return
    if isinstance(value.get("class_path"), str):
        yield name, value["class_path"].rpartition(".")[2]
        value = value.get("init_args") or {}
    for key, inner in value.items():
        yield from _leaves(f"{name}.{key}", inner)


def _entries(name: str, value: Any, defaults: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what differs from the defaults below a setting, and what is shown in any case."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        yield name, value["class_path"].rpartition(".")[2]
        defaults, value = defaults_of(value["class_path"]), value.get("init_args") or {}
    for key, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict):
            yield from _entries(f"{name}.{key}", inner, {})
        elif isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
            for item in inner:
                yield from _listed(f"{name}.{key}", item)
        elif inner not in (None, -1) and (key in MAIN or not _is_default(inner, defaults.get(key))):
            yield f"{name}.{key}", inner


def _listed(name: str, item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield an entry of a list, such as a callback, and then its arguments under the name of its class."""
    kind = str(item.get("class_path", name)).rpartition(".")[2]
    for inner, value in _entries(kind, item, {}):
        yield (name if inner == kind else inner), value


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(default, tuple | list) and isinstance(value, list):
        return value == list(default)
    return bool(value == default) if isinstance(default, str | int | float | bool) else False


def defaults_of(class_path: str) -> dict[str, Any]:
    """Return the default of each argument of a class and its bases, by name; empty for a class that is not known."""
    kind = public_class(public_path(class_path))
    if kind is None:
        module, _, name = class_path.rpartition(".")
        kind = vars(sys.modules[module]).get(name) if module in sys.modules else None  # `getattr` may import
    defaults: dict[str, Any] = {}
    for base in reversed(inspect.getmro(kind)) if inspect.isclass(kind) else ():
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            defaults |= {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return defaults
