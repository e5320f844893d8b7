"""What all pages share: their templates, and how text and shares are written in them."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tailmatch.datamodules.class_names import printable

NAME_LENGTH = 200
"""The number of characters of a name that a table shows."""


def environment(*folders: Path) -> Environment:
    """Make what renders the templates of this folder, and of others that come first; every text is escaped."""
    made = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = percent
    made.filters["count"] = "{:,}".format
    return made


def shown(text: str, length: int = NAME_LENGTH) -> str:
    """Return text as a page shows it: without control characters and lone surrogates, and of bounded length."""
    text = printable(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share in percent; a dash for one that is not defined."""
    if share is None or share != share:
        return "–"
    least = 0.1**digits
    return f"<{least:.{digits}f} %" if 0 < 100 * share < least / 2 else f"{100 * share:.{digits}f} %"
