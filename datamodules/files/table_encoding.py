"""Find out why a table of text is not in the encoding that it is read in."""

import codecs
from pathlib import Path

from tailmatch.datamodules.arguments import SettingsError

MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""How files of an encoding begin; the mark of UTF-32 begins with that of UTF-16."""


def check_utf_16(path: Path, encoding: str) -> None:
    """Refuse text whose characters take two or four bytes, read as another encoding: it would be text with zeros.

    Raises:
        SettingsError: The file is UTF-16 or UTF-32, by its mark or by its zeros, and the encoding is another one.
    """
    if _is_wide(encoding):
        return
    with path.open("rb") as file:
        head = file.read(4096)
    wide = next((name for name, marks in MARKS.items() if head.startswith(marks)), None)
    if wide is None and 4 * head.count(0) > len(head):  # half of the bytes of Latin text
        wide = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
    if wide is not None:
        raise SettingsError(
            f"{path} is {wide.upper()}, and encoding is {encoding}: give encoding {wide}, or save it as UTF-8"
        )


def _is_wide(encoding: str) -> bool:
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def wrong_encoding(path: Path, delimiter: str, encoding: str) -> SettingsError:
    """Make the error for a file that is not in an encoding; it names the first such row and column, from 1."""
    if _is_wide(encoding):  # whose lines are not those of its bytes
        return SettingsError(f"{path} is not {encoding}; leave encoding out for UTF-8, or give the right one")
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                column = line[: error.start].count(delimiter.encode()) + 1
                return SettingsError(
                    f"{path}: row {row}, column {column}: {line[error.start : error.end]!r} is not {encoding}; give "
                    "the encoding, for example latin-1 or cp1252"
                )
    return SettingsError(f"{path} is not {encoding}; give the encoding")
