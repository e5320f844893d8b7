"""The parser of the command line, whose messages are for users."""

import difflib
import inspect
import re
import sys
from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from tailmatch.command_line.mends import mend_jsonargparse
from tailmatch.lightning_modules.inference.class_paths import class_named, public_names


class Parser(LightningArgumentParser):
    """A parser whose errors are the message, without the list of all options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        mend_jsonargparse()
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and what would be right; exit code 2."""
        if not self.exit_on_error:  # an inner parser: the outer one will say it
            super().error(message, ex)
        sys.stderr.write(f"tailmatch: error: {plain_message(message, self)}\n")
        sys.exit(2)


def plain_message(message: str, parser: LightningArgumentParser) -> str:
    """A parser's message without the parts about Python types, and with the names that come nearest."""
    noise = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "Expected a <class 'NoneType'>",
        "Expected a path",
        "Given value",
    )
    lines = [line for line in message.splitlines() if not line.strip().removeprefix("- ").startswith(noise)]
    text = "\n".join(dict.fromkeys(line for line in lines if line.strip()))
    text = text.replace("Expected a dot import path string:", "There is no class")
    option = re.search(r"Option '([\w.]+)' is not accepted", text)
    path = re.search(r"class_path '([\w.]+)'", text)
    member = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text)
    name = re.search(r"There is no class (\w+)", text)
    key = re.search(r"(?:accept option '|arguments: --|Key ')([\w.]+)", text)
    asked, known = [], list[str]()
    if option and path:
        asked, known = [option[1]], argument_names(path[1])
    elif member:
        asked, known = [member[2]], dir(sys.modules.get(member[1]))  # a text may only pretend that it is imported
    elif name:
        asked, known = [name[1]], public_names()
    elif key:
        asked = [key[1], key[1].split(".")[0]]
        names = [action.dest for p in (parser, *parser_of_subcommands(parser)) for action in p._actions]
        known = names + [name.split(".")[0] for name in names]
    close = next((found for word in asked if (found := difflib.get_close_matches(word, known, n=3))), [])
    return text + (f"\n  Did you mean: {', '.join(dict.fromkeys(close))}?" if close else "")


def argument_names(class_path: str) -> list[str]:
    """Arguments of a class and of its bases."""
    bases = class_named(class_path).__mro__
    return sorted({a for base in bases for a in inspect.signature(base.__init__).parameters} - {"self", "kwargs"})


def parser_of_subcommands(parser: LightningArgumentParser) -> list[LightningArgumentParser]:
    """Parsers of `fit`, `validate`, `test` and `predict`."""
    action = parser._subcommands_action
    return list(action._name_parser_map.values()) if action else []
