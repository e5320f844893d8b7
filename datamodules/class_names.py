"""Names of classes as text: which cells name the same class, how classes are sorted, and how they are shown."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

LENGTH = 24
"""The number of characters of a name that figures and tables show; longer names would leave no room for the rest."""

INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
"""Characters without width that are left in text by web pages and spreadsheets: spaces and the byte order mark."""

_REORDERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Kinds of characters that change the order in which the text after them is shown."""

WHOLE = re.compile(r"-?\d{1,300}")
"""A class name that is a whole number; Python refuses to convert thousands of digits."""


def clean_name(text: str) -> str:
    """Return the name that a cell means: single spaces, none at the ends, composed accents, no invisible characters.

    No-break spaces and tabs count as spaces.
    """
    return " ".join(unicodedata.normalize("NFC", text).translate(INVISIBLE).split())


def class_key(name: str) -> str | int:
    """Return what two names of the same class share: the value of a whole number (`007` is 7), or the clean text."""
    name = clean_name(name)
    return int(name) if WHOLE.fullmatch(name) else name


def sorted_names(names: Iterable[str]) -> list[str]:
    """Sort class names: by value if all are whole numbers (1, 2, 10), otherwise as text."""
    names = sorted(names)
    return sorted(names, key=int) if all(map(WHOLE.fullmatch, names)) else names


def same_classes(there: Sequence[str], here: Sequence[str]) -> bool:
    """Tell whether two lists name the same classes, in any order and spelling."""
    keys = {class_key(name) for name in here}
    return len(there) == len(here) == len(keys) and {class_key(name) for name in there} == keys


def names_digest(names: Iterable[str]) -> str:
    """Return the SHA-256 of class names in their order."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()


def printable(text: str) -> str:
    r"""Return text for a terminal or a figure: control characters and bytes that are not UTF-8 are escapes (`\x1b`).

    So are characters that reverse what follows, such as U+202E.
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in _REORDERING
        else c
        for c in text
    )


def short_name(name: str) -> str:
    """Return a name as figures and tables show it, at most 24 characters long."""
    shown = printable(name)
    return shown if len(shown) <= LENGTH else f"{shown[: LENGTH - 3]}..."


def name_column(header: str, names: Sequence[str]) -> list[str]:
    """Lay out the header and the short names as a column of text: of equal width in a terminal, also in Chinese."""
    cells = [header, *map(short_name, names)]
    wide = max(map(cell_len, cells))
    return [cell + " " * (wide - cell_len(cell)) for cell in cells]
