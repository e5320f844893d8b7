"""Errors for mistakes that a user can mend, and checks of arguments that raise them.

Every check of a number also refuses NaN and values that are not numbers (text, None, true and false). The message is
`NAME is VALUE; it must be ...`, followed by `hint`, which may say what a value at the bound would mean.
"""

import math
from collections.abc import Collection
from numbers import Real


class SettingsError(ValueError):
    """A mistake that the user can mend. The message names the setting, its value and what would be right.

    The command line prints only the message. Every other error is a fault of the program and keeps its traceback.
    """


class MissingFileError(SettingsError, FileNotFoundError):
    """A file that the user named does not exist."""


def check_share(name: str, value: float, hint: str = "") -> None:
    """Refuse a value outside [0, 1].

    Raises:
        SettingsError: The value is outside.
    """
    check_between(name, value, 0, 1, hint)


def check_positive_share(name: str, value: float, hint: str = "") -> None:
    """Refuse a value outside (0, 1].

    Raises:
        SettingsError: The value is outside.
    """
    if not 0 < _number(value) <= 1:
        raise _wrong(name, value, "in (0, 1]", hint)


def check_below_one(name: str, value: float, hint: str = "") -> None:
    """Refuse a value outside [0, 1).

    Raises:
        SettingsError: The value is outside.
    """
    if not 0 <= _number(value) < 1:
        raise _wrong(name, value, "in [0, 1)", hint)


def check_between(name: str, value: float, least: float, most: float, hint: str = "") -> None:
    """Refuse a value outside [`least`, `most`].

    Raises:
        SettingsError: The value is outside.
    """
    if not least <= _number(value) <= most:
        raise _wrong(name, value, f"in [{least}, {most}]", hint)


def check_positive(name: str, value: float, hint: str = "") -> None:
    """Refuse a value that is not above 0, or not finite.

    Raises:
        SettingsError: The value is 0, negative or infinite.
    """
    if not 0 < _number(value) < math.inf:
        raise _wrong(name, value, "above 0", hint)


def check_at_least(name: str, value: float, least: float, hint: str = "") -> None:
    """Refuse a value below a bound.

    Raises:
        SettingsError: The value is below.
    """
    if not _number(value) >= least:
        raise _wrong(name, value, f"at least {least}", hint)


def check_choice(name: str, value: str, choices: Collection[str], hint: str = "") -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        SettingsError: The value is not one of them.
    """
    if value not in choices:
        raise _wrong(name, value, f"one of {', '.join(choices)}", hint)


def _number(value: object) -> float:
    """Convert a value to a number, or to NaN, which fails every comparison, if it is not one."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def _wrong(name: str, value: object, domain: str, hint: str) -> SettingsError:
    return SettingsError(f"{name} is {value!r}; it must be {domain}{hint}")
