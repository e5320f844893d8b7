"""Checks of arguments: their domains, and what they say."""

import math
from typing import Any

import numpy as np
import pytest

from tailmatch.datamodules import arguments
from tailmatch.datamodules.arguments import SettingsError

CHECKS = [
    ("check_share", (), [0, 0.5, 1, np.float32(0.5)], [-0.1, 1.1], "in [0, 1]"),
    ("check_positive_share", (), [0.1, 1], [0, 1.1], "in (0, 1]"),
    ("check_below_one", (), [0, 0.9], [-1, 1], "in [0, 1)"),
    ("check_between", (0, 0.5), [0, 0.5], [-1, 0.6], "in [0, 0.5]"),
    ("check_positive", (), [0.1, 100], [0, -1, math.inf], "above 0"),
    ("check_at_least", (2,), [2, 2.5], [1, math.inf, -math.inf], "at least 2"),
]


@pytest.mark.parametrize(("name", "bounds", "good", "bad", "domain"), CHECKS)
def test_numbers_outside_the_domain_are_refused(name: str, bounds: tuple, good: list, bad: list, domain: str) -> None:
    check = getattr(arguments, name)
    for value in good:
        check("x", value, *bounds)
    for value in [*bad, math.nan, "1", None, True]:
        with pytest.raises(SettingsError) as error:
            check("x", value, *bounds, hint=" (why)")
        assert str(error.value) == f"x is {value!r}; it must be {domain} (why)"


def test_whole_numbers() -> None:
    arguments.check_count("x", 2)
    arguments.check_count("x", np.int64(0), 0)
    for value, domain in ((0, "at least 1"), (1.0, "a whole number, at least 1"), ("1", "a whole number, at least 1")):
        with pytest.raises(SettingsError, match=f"x is {value!r}; it must be {domain}"):
            arguments.check_count("x", value)  # type: ignore[arg-type]
    for value in (True, math.nan, None):
        with pytest.raises(SettingsError, match="x is "):
            arguments.check_count("x", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0.5, 2], r"x\[1\] is 2; it must be in \[0, 1\]"),
        (["0.5", 1], r"x\[0\] is '0.5'; it must be"),
        ("01", "x is '01'; it must be 2 numbers"),
        ({"0": 1, "1": 0}, "x is {.*}; it must be 2 numbers"),
        ([0.5], r"x is \[0.5\]; it must be 2 numbers"),
        (0.5, "x is 0.5; it must be 2 numbers"),
    ],
)
def test_numbers_of_a_list(value: Any, message: str) -> None:
    arguments.check_each("x", [0, 0.5], arguments.check_share, length=2)
    arguments.check_each("x", np.array([0, 0.5]), arguments.check_share, length=2)  # type: ignore[arg-type]
    arguments.check_each("x", (), arguments.check_share)
    with pytest.raises(SettingsError, match=message):
        arguments.check_each("x", value, arguments.check_share, length=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cat", "x is 'cat'; it must be a list of names"),
        (["cat", 1], r"x is \['cat', 1\]; it must be a list of names"),
        (["cat", ""], "it must be a list of names"),
        (["cat", "dog", "cat"], "x has 'cat' more than once; its names must differ"),
    ],
)
def test_names_of_a_list(value: Any, message: str) -> None:
    arguments.check_names("x", ("cat", "dog"))
    with pytest.raises(SettingsError, match=message):
        arguments.check_names("x", value)


def test_other_choices_are_refused() -> None:
    arguments.check_choice("x", "a", ("a", "b"))
    for value in ("c", None, 1):
        with pytest.raises(SettingsError, match=f"x is {value!r}; it must be one of a, b"):
            arguments.check_choice("x", value, ("a", "b"))  # type: ignore[arg-type]
