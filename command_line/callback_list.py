"""Join the callbacks that several configurations add to one list."""

import inspect
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback

from tailmatch.lightning_modules.inference.trust import class_named


def joined(callbacks: list[Namespace]) -> list[Namespace]:
    """Join the entries of a callback that a trainer accepts once, such as a monitor that two configurations add.

    The joined callback stands where the first one stood. It has the settings of the first one, and those of each later
    one that are not the default. Of callbacks that a trainer accepts several times, such as writers of different files,
    only equal entries are joined.

    Args:
        callbacks: Entries with `class_path` and perhaps `init_args`, as the parser returns them.
    """
    kept: list[Namespace] = []
    for entry in callbacks:
        cls = class_named(entry.class_path)
        first = next((e for e in kept if e == entry or (e.class_path == entry.class_path and _is_single(cls))), None)
        if first is None:
            kept.append(entry)
        else:
            _update(first, entry, cls)
    return kept


def _is_single(cls: type) -> bool:
    """Tell whether a trainer refuses a second one: it keeps a state under the name of its class."""
    return cls.state_dict is not Callback.state_dict and cls.state_key is Callback.state_key  # type: ignore[attr-defined]


def _update(first: Namespace, later: Namespace, cls: type) -> None:
    defaults: dict[str, Any] = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    settings = later.get("init_args")
    for name, value in vars(settings).items() if settings else ():
        if value != defaults.get(name):
            first.init_args[name] = value
