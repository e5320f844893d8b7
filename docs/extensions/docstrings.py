"""Docstrings as the reference shows them.

They are written to be read in the source and by `--help`: code in single backticks, equations as indented blocks.
"""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Attributes|Examples?|Note|Raises|Returns|Yields):$")


def show_blocks_as_they_are(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mark indented blocks that follow an empty line as literal, as Markdown takes them. Lists and sections stay."""
    shown: list[str] = []
    block = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        before = [text for text in lines[:number] if text.strip()]
        if indented and not block and number and not lines[number - 1].strip() and _is_text(before):
            shown += ["::", ""]
            block = True
        elif line.strip() and not indented:
            block = False
        shown.append(line)
    lines[:] = shown


def _is_text(before: list[str]) -> bool:
    """Whether the paragraph before a block is text at the margin, and no item of a list or section."""
    return bool(before) and not before[-1].startswith((" ", "* ")) and not SECTION.match(before[-1])


def leave_out(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out packages in a package, and methods that a base class defines: Lightning, torch, or one of ours."""
    return True if inspect.ismodule(obj) or (what == "class" and _overrides(name, obj)) else None


def _overrides(name: str, method: Any) -> bool:
    function = getattr(method, "fget", method)  # of a property
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    cls = getattr(inspect.getmodule(function), owner, None) if owner else None
    return inspect.isclass(cls) and any(name in vars(base) for base in cls.__mro__[1:])


def setup(app: Sphinx) -> dict[str, Any]:
    """Change docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", show_blocks_as_they_are, priority=400)
    app.connect("autodoc-skip-member", leave_out)
    return {"parallel_read_safe": True}
