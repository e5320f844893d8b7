"""Errors for mistakes that a user can mend, and checks of arguments that raise them.

Every check of a number also refuses NaN and values that are not numbers (text, None, true and false). The message is
`NAME is VALUE; it must be ...`, followed by `hint`, which may say what a value at the bound would mean.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from numbers import Integral, Real


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
    """Refuse a value below a bound, or not finite.

    Raises:
        SettingsError: The value is below, or infinite.
    """
    if not least <= _number(value) < math.inf:
        raise _wrong(name, value, f"at least {least}", hint)


def check_count(name: str, value: int, least: int = 1, hint: str = "") -> None:
    """Refuse a value that is no whole number, or below a bound.

    Raises:
        SettingsError: The value is no whole number, or below.
    """
    whole = isinstance(value, Integral)
    if not whole or not _number(value) >= least:
        raise _wrong(name, value, f"at least {least}" if whole else f"a whole number, at least {least}", hint)


def check_each(
    name: str, values: Sequence[float], check: Callable[..., None], *bounds: float, length: int | None = None
) -> None:
    """Refuse what is no sequence of numbers, or has a number that a check refuses.

    Args:
        name: The name of the argument.
        values: The value of the argument.
        check: One of the checks above, which also gets `bounds`.
        bounds: The bounds of the check.
        length: The number of entries. None: any number.

    Raises:
        SettingsError: The value is no sequence, has another number of entries, or one of them is refused.
    """
    if not _is_list(values) or len(values) != (length or len(values)):
        raise _wrong(name, values, "a list of numbers" if length is None else f"{length} numbers", "")
    for place, value in enumerate(values):
        check(f"{name}[{place}]", value, *bounds)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        SettingsError: The value is not one of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise _wrong(name, value, f"one of {', '.join(choices)}", "")


def check_names(name: str, values: Sequence[str]) -> None:
    """Refuse what is no sequence of names, or has a name twice.

    Raises:
        SettingsError: The value is a text or no sequence, an entry is empty or no text, or some are equal.
    """
    if not _is_list(values) or not all(isinstance(value, str) and value for value in values):
        raise _wrong(name, values, "a list of names", "")
    twice = (
        sorted({value for value in values if list(values).count(value) > 1}) if len(set(values)) < len(values) else []
    )
    if twice:
        raise SettingsError(f"{name} has {', '.join(map(repr, twice[:5]))} more than once; its names must differ")


def check_channel_statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Refuse statistics of the channels that are not those of pixels in [0, 1]; None is none to check.

    Raises:
        SettingsError: There are not three numbers, a mean lies outside [0, 1], or a standard deviation outside (0, 1].
    """
    if mean is not None:
        check_each("mean", mean, check_share, length=3)
    if std is not None:
        check_each("std", std, check_positive_share, length=3)


def _is_list(values: object) -> bool:
    """Tell whether a value is a list, a tuple, an array or the like."""
    return isinstance(values, Sized) and isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)


def _number(value: object) -> float:
    """Convert a value to a number, or to NaN, which fails every comparison, if it is not one."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _wrong(name: str, value: object, domain: str, hint: str) -> SettingsError:
    return SettingsError(f"{name} is {value!r}; it must be {domain}{hint}")
