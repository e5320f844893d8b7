"""Find the commands that the documentation and the headers of the configurations name, and the code of tutorials."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
WITH_TESTS = ("adding-a-method.md", "own-modules.md")
"""Pages whose commands need the page's own classes: each has a test that runs it."""

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in ROOT.glob("docs/*.md") if page.name not in WITH_TESTS),
    *sorted((ROOT / "configs").rglob("*.yaml")),
]
TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.md"))
"""Pages whose blocks are run, one after the other, as a reader runs them."""

COMMAND = re.compile(r"(?:\.venv/bin/)?(tailmatch |python -m (?:tailmatch|benchmarks)[.\w]* ?)")


@dataclass(frozen=True)
class Command:
    """A command of a page, as words without the program's name.

    Attributes:
        program: `tailmatch`, or the module that `python -m` runs.
        words: Its arguments.
    """

    program: str
    words: tuple[str, ...]


def commands_of(page: Path) -> list[Command]:
    """List the commands of a page in their order: lines of code blocks and headers, and code within text.

    A part in square brackets is optional: the command is listed without it and with it. A loop `for X in A B; do ...;
    done` is listed once for each value. A program's name, alone or with one word, is no command but a mention.
    """
    text = page.read_text()
    if page.suffix == ".yaml":
        text = "\n".join(line.lstrip("#").strip() for line in text.splitlines() if line.startswith("#"))
    return _commands_in(text)


def steps_of(page: Path) -> list[Command | str]:
    """List what a tutorial lets its reader run, in order: each command, and each block of Python as its text."""
    steps: list[Command | str] = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        steps += [block] if language == "python" else _commands_in(block)
    return steps


def pictures_of(page: Path) -> list[str]:
    """List the pictures beside a page that it shows."""
    return re.findall(r"!\[[^\]]+\]\(([\w-]+\.png)\)", page.read_text())


def shortened(code: str, **settings: int) -> str:
    """Return Python code with other numbers for some keyword arguments, and without progress bars.

    Raises:
        AssertionError: The code has no such argument.
    """
    for setting, small in settings.items():
        code, count = re.subn(rf"\b{setting}=\d+", f"{setting}={small}", code)
        assert count, f"no {setting} on the page"
    return re.sub(r"\bTrainer\(", "Trainer(enable_progress_bar=False, ", code)


def _commands_in(text: str) -> list[Command]:
    commands = [command for line in _lines(text) for command in _variants(line)]
    return [command for command in commands if len(command.words) > (command.program == "tailmatch")]


def _lines(text: str) -> Iterator[str]:
    text = re.sub(r"\\\n\s*", " ", text)
    for loop, name, values, body in re.findall(
        r"^(for (\w+) in ([^;\n]+); do\n(.*?)\ndone)", text, re.DOTALL | re.MULTILINE
    ):
        bodies = [body.replace(f"${name}", value) for value in values.split()]
        text = text.replace(loop, "\n".join(bodies))
    for line in text.splitlines():
        if COMMAND.match(line.strip()):
            yield line.strip()
        else:
            yield from (code for code in re.findall(r"`([^`]+)`", line) if COMMAND.match(code))


def _variants(line: str) -> Iterator[Command]:
    line = line.removeprefix(".venv/bin/")
    parts = re.split(r"\[(--[^\]]*)\]", line)  # optional parts at odd places
    for chosen in itertools.product(*[("", part) if number % 2 else (part,) for number, part in enumerate(parts)]):
        words = shlex.split("".join(chosen), comments=True)
        program, words = (words[0], words[1:]) if words[0] == "tailmatch" else (words[2], words[3:])
        yield Command(program, tuple(words))
