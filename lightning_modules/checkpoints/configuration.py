"""The configuration text in a checkpoint, read as data of bounded size."""

from collections.abc import Mapping
from typing import Any

import yaml

from tailmatch.datamodules.arguments import SettingsError

MOST_CHARACTERS = 1_000_000
"""Bound of the text; that of a run has a few thousand."""

MOST_VALUES = 50_000
"""Bound of the values in it, each counted where it is and where an alias repeats it."""

LONGEST_NUMBER = 100
"""Bound of the characters of a number: Python refuses to print one of thousands, or takes minutes to read it."""


def read_configuration(text: object, path: str) -> dict[str, Any]:
    """Convert the configuration in a checkpoint to plain values.

    Args:
        text: What the checkpoint has, YAML of a run.
        path: The checkpoint's file, for messages.

    Raises:
        SettingsError: The text is too large, is not YAML, or has no settings.
    """
    if not isinstance(text, str):
        raise SettingsError(f"the configuration in checkpoint {path!r} is a {type(text).__name__}; it must be a text")
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(
            f"the configuration in checkpoint {path!r} has {len(text)} characters; at most {MOST_CHARACTERS} are read"
        )
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and count_values(node) > MOST_VALUES:
            raise SettingsError(
                f"the configuration in checkpoint {path!r} has more than {MOST_VALUES} values, or an alias in itself"
            )
        return _checked(None if node is None else loader.construct_document(node), path)
    except SettingsError:
        raise
    # What SafeLoader raises of values that do not fit their tag, beside errors of its own
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(f"the configuration in checkpoint {path!r} is no plain YAML: {reason}") from error
    finally:
        loader.dispose()


def count_values(node: yaml.Node) -> int:
    """Count the values of a document, aliases written out; more than `MOST_VALUES` if one contains itself."""
    return _count(node, {})


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node, aliases written out; more than `MOST_VALUES` if one contains itself."""
    if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise yaml.MarkedYAMLError(problem=f"a number of {len(node.value)} characters", problem_mark=node.start_mark)
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # while it is counted
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in inner)
    return known[id(node)]


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _no_argument(settings: Any) -> object | None:
    """Find a key of `init_args`, at any depth, that is no name: jsonargparse reads `a.b` as an argument of another."""
    if isinstance(settings, list):
        return next((found for value in settings if (found := _no_argument(value)) is not None), None)
    if not isinstance(settings, dict):
        return None
    arguments = settings.get("init_args")
    names = [*arguments] if isinstance(arguments, dict) else []
    names += [name for name in settings if "class_path" in settings]
    wrong = (name for name in names if not (isinstance(name, str) and name.isidentifier()))
    return next(wrong, _no_argument(list(settings.values())))


def _checked(settings: Any, path: str) -> dict[str, Any]:
    """Refuse what is no configuration: settings by name, with `model` and `data` of a class with arguments."""
    if not isinstance(settings, dict):
        raise SettingsError(f"the configuration in checkpoint {path!r} is a {type(settings).__name__}, and no settings")
    name = _no_argument(settings)
    if name is not None:
        raise SettingsError(f"the configuration in checkpoint {path!r} has an argument {name!r}, which is not a name")
    wrong = [] if isinstance(settings.get("trainer") or {}, Mapping) else ["trainer"]
    for part in ("model", "data"):
        section = settings.get(part, {"class_path": ""})
        named = isinstance(section, Mapping) and isinstance(section.get("class_path"), str)
        if not (named and isinstance(section.get("init_args", {}), Mapping)):
            wrong.append(part)
    if wrong:
        raise SettingsError(
            f"the configuration in checkpoint {path!r} has a {wrong[0]} that is no mapping as in that of a run "
            "(class_path and init_args, or the trainer's settings)"
        )
    return settings
