"""Read the values of a study file, with one message for each that is none of what it must be."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tailmatch.datamodules.arguments import SettingsError


def check_positive_integer(value: Any, name: str) -> None:
    """Check a number.

    Raises:
        SettingsError: It is no integer above 0.
    """
    if type(value) is not int or value < 1:
        raise SettingsError(f"{name} is {value!r}; it must be an integer above 0")


def mapping(content: Any, name: str) -> Mapping[Any, Any]:
    """Read a mapping.

    Raises:
        SettingsError: It is none.
    """
    if not isinstance(content, dict):
        raise SettingsError(f"{name} is {_kind(content)}; it must be a mapping, `name: value`")
    return content


def list_of(content: Any, name: str) -> list[Any]:
    """Read a list; None is an empty one.

    Raises:
        SettingsError: It is none.
    """
    if content is not None and not isinstance(content, list):
        raise SettingsError(f"{name} is {_kind(content)}; it must be a list, `[a, b]`")
    return content or []


def name_of(value: Any, where: str) -> str:
    """Read a name of an axis or a level; YAML reads `on` and `no` as truth values, which nobody means by a name.

    Raises:
        SettingsError: It is a truth value, empty or too long.
    """
    if isinstance(value, bool) or value is None:
        raise SettingsError(f"{where}: a name is {option_text(value)} to YAML; write it in quotes")
    text = option_text(value)
    if not text.strip() or len(text) > 200:
        raise SettingsError(f"{where}: the name {text[:50]!r} is empty or longer than 200 characters")
    return text


def option_text(value: Any) -> str:
    """Write the value of an option for a command line: text as it is, everything else as YAML in one line."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _kind(content: Any) -> str:
    return "empty" if content is None else f"{content!r:.60}"


def near(name: Any, known: Iterable[str]) -> str:
    """Suggest a name like one that is unknown, or list what there is: the end of a message."""
    names = list(known)
    found = difflib.get_close_matches(str(name), names, n=1)
    return f"\n  Did you mean: {found[0]}?" if found else f"; there are {', '.join(names[:20])}"
