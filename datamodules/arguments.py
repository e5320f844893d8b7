"""Errors that a user can mend, and checks of arguments that raise them."""

import math


class SettingsError(ValueError):
    """Something that the user set is wrong: the message names it, its value and what would be right.

    The command line prints the message alone. Every other error is a fault of the program and keeps its traceback.
    """


class MissingFileError(SettingsError, FileNotFoundError):
    """A file that the user named does not exist."""


def check_share(name: str, value: float) -> None:
    """Refuse a value outside [0, 1].

    Raises:
        SettingsError: It is outside, or NaN.
    """
    if not 0 <= value <= 1:
        raise SettingsError(f"{name} is {value}; it must be in [0, 1]")


def check_below_one(name: str, value: float, hint: str = "") -> None:
    """Refuse a value outside [0, 1).

    Args:
        name: The argument.
        value: Its value.
        hint: What the message adds, such as what 1 would mean.

    Raises:
        SettingsError: It is outside, or NaN.
    """
    if not 0 <= value < 1:
        raise SettingsError(f"{name} is {value}; it must be in [0, 1){hint}")


def check_positive(name: str, value: float) -> None:
    """Refuse a value that is not above 0 and finite.

    Raises:
        SettingsError: It is not.
    """
    if not 0 < value < math.inf:
        raise SettingsError(f"{name} is {value}; it must be above 0")


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a value below a bound.

    Raises:
        SettingsError: It is below, or NaN.
    """
    if not value >= least:
        raise SettingsError(f"{name} is {value}; it must be at least {least}")
