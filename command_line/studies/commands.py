"""Read the commands of a study, and check them before anything is run."""

import shlex
from importlib import import_module
from typing import Any

from tailmatch.command_line.studies.cell import WITH_SETTINGS
from tailmatch.command_line.studies.study import COMMANDS
from tailmatch.command_line.studies.values import list_of, near
from tailmatch.command_line.typed import OPTIONS
from tailmatch.datamodules.arguments import SettingsError

OTHERS = ("label", "refine", "select", "report", "export")
"""Commands of a study that take no settings."""


def read_commands(content: Any, name: str) -> tuple[str, ...] | None:
    """Read the commands of a study or a level; None if there is no content.

    Raises:
        SettingsError: There are none, or one is no command of this package, has an option that the command does not
            know, or a quote that is not closed.
    """
    if content is None:
        return None
    commands = tuple(str(each) for each in list_of(content, f"{name}: commands"))
    for command in commands:
        where = f"{name}: commands has {command!r}"
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise SettingsError(f"{where}, in which a quote is not closed") from error
        if not words or words[0] not in WITH_SETTINGS + OTHERS:
            raise SettingsError(f"{where}; it must begin with one of {', '.join(WITH_SETTINGS + OTHERS)}")
        _check_options(words, where)
    if not commands:
        raise SettingsError(f"{name}: commands is empty; leave it out for {', '.join(COMMANDS)}")
    return commands


def _check_options(words: list[str], where: str) -> None:
    """Check the names of options; their values are checked when the command is run."""
    if words[0] in WITH_SETTINGS:
        known = [f"--{option}" for option in OPTIONS]
    else:
        parser = import_module(f"tailmatch.command_line.{words[0]}").parser()
        known = [option for action in parser._actions for option in action.option_strings]
    for word in words[1:]:
        option = word.split("=")[0]
        first = option.split(".")[0].removesuffix("+") if words[0] in WITH_SETTINGS else option
        if option.startswith("--") and first not in known:
            raise SettingsError(f"{where}, and {words[0]} has no option {option}{near(first, known)}")
