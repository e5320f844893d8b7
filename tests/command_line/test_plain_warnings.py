"""Warnings of this package are one line; those of others stay as they are."""

import warnings

import pytest

from tailmatch.command_line import plain_warnings
from tailmatch.command_line.plain_warnings import plain_warnings as replace_layout


def test_warnings_of_this_package_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restores it
    replace_layout()
    once = warnings.formatwarning
    replace_layout()
    assert warnings.formatwarning is once
    assert once("too few images", UserWarning, plain_warnings.__file__, 3) == "warning: too few images\n"
    users = once("too few images", UserWarning, __file__, 3, "warn()")
    assert __file__ in users
