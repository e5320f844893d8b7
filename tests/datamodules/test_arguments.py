"""Checks of arguments: their domains, and what they say."""

import math

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
    ("check_at_least", (2,), [2, 2.5, math.inf], [1, -math.inf], "at least 2"),
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


def test_other_choices_are_refused() -> None:
    arguments.check_choice("x", "a", ("a", "b"))
    for value in ("c", None, 1):
        with pytest.raises(SettingsError, match=f"x is {value!r}; it must be one of a, b"):
            arguments.check_choice("x", value, ("a", "b"))  # type: ignore[arg-type]
