"""Names of classes as text: how they are shown."""

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len

LENGTH = 24
"""The number of characters of a name that figures and tables show; longer names would leave no room for the rest."""


def printable(text: str) -> str:
    r"""Return text for a terminal or a figure: control characters and bytes that are not UTF-8 as escapes (`\x1b`)."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text
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
