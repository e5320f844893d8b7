"""Read columns of a CSV, TSV or Parquet file, a million rows in seconds.

The standard library's csv is fast enough when rows are turned into columns hundreds at a time, so that hardly any
Python runs for a single row. Messages count rows as a spreadsheet does: the first row of the file is row 1.
"""

import csv
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.bounds import MOST_COLUMNS, check_parquet
from tailmatch.datamodules.files.table_encoding import check_utf_16, wrong_encoding
from tailmatch.datamodules.output_files import pyarrow_for

CHUNK = 256
"""How many rows are turned into columns at a time: fewer than the 700 objects after which Python's garbage collector
looks at all of them. A million rows took 1.2 s, and 6.9 s with 65,536."""

PARQUET_CHUNK = 65536

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": " "}

Columns = list[Sequence[str]]
Chunks = Callable[[Sequence[str]], Iterator[Columns]]
"""A function that gives the named columns, some rows at a time."""


@dataclass(frozen=True)
class Coded:
    """A column with few different values.

    Attributes:
        values: The values, in the order of their first rows.
        codes: `int64 [N]`, the index of each row's value in `values`.
    """

    values: list[str]
    codes: NDArray[np.int64]

    def first_index(self, value: str) -> int:
        """Find the first row that has a value, counted from 0."""
        return int(np.argmax(self.codes == self.values.index(value)))

    def translate(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """Replace each row's value by a number, given one number for each of `values`: `int64 [N]`."""
        return np.array(numbers, dtype=np.int64)[self.codes]


@dataclass(frozen=True)
class Table:
    """Some columns of a table.

    Attributes:
        path: The file of the table.
        first_row: The number of the first row of data in messages: 2 below a header, else 1.
        images: The cells of the image column.
        coded: The other columns by name.
    """

    path: Path
    first_row: int
    images: list[str]
    coded: dict[str, Coded]

    def place(self, index: int, column: str) -> str:
        """Give the name of a cell in messages."""
        return f"{self.path}: row {index + self.first_row}, column {column!r}"

    def first_place(self, column: str, value: str) -> str:
        """Give the name of the first cell of a coded column that has a value."""
        return self.place(self.coded[column].first_index(value), column)


@dataclass(frozen=True)
class TableFormat:
    """The format of a table of text.

    Attributes:
        columns: The names of the columns of a file without a header. None: the first row holds the names.
        delimiter: The character between cells. None: a comma in .csv, a tab in .tsv, a space in .txt.
        encoding: The encoding of the text. The default reads UTF-8 with or without a byte order mark.

    Raises:
        SettingsError: `columns` is a text, `delimiter` is not one character, or `encoding` is unknown.
    """

    columns: Sequence[str] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8-sig"

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise SettingsError(f"columns is {self.columns!r}; it must be a list of names")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise SettingsError(f"delimiter is {self.delimiter!r}; it must be one character")
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError) as error:  # ValueError: a zero byte in the name
            raise SettingsError(f"encoding is {self.encoding!r}; it must be one that Python knows, as utf-8") from error


def read_table(
    path: Path, layout: TableFormat, image: str, needed: Sequence[str] = (), optional: Sequence[str] = ()
) -> Table:
    """Read columns by name.

    Args:
        path: The file: `.parquet`, or text.
        layout: The format of a text file.
        image: The name of the image column.
        needed: The names of further columns that must exist.
        optional: The names of further columns that may exist.

    Raises:
        MissingFileError: The file is missing.
        SettingsError: The file cannot be read, is empty or lacks a column, or a row is too long or too short.
    """
    names, chunks = _open(path, layout)
    headed = path.suffix.lower() == ".parquet" or layout.columns is None
    wanted = list(dict.fromkeys([image, *needed, *(name for name in optional if name in names)]))
    for name in wanted:
        if names.count(name) != 1:
            what = f"{'two columns' if name in names else 'no column'} {name!r}; its columns are {_some(names)}"
            folded = {other.casefold(): other for other in names}
            near = [] if name in names else difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)
            hint = " (of a file without header, give `columns`; remove what stands above a header)" if headed else ""
            hint = " (is the `delimiter` right?)" if len(names) == 1 and path.suffix.lower() != ".parquet" else hint
            hint = f"; did you mean {folded[near[0]]!r}?" if near else hint
            raise SettingsError(f"{path}: {what}{hint}")
    images: list[str] = []
    coders = [_Coder() for _ in wanted[1:]]
    for cells, *others in chunks(wanted):
        images += cells
        for coder, column in zip(coders, others, strict=True):
            coder.add(column)
    if not images:
        raise SettingsError(f"{path}: {_NO_ROWS}")
    coded = {name: coder.finish() for name, coder in zip(wanted[1:], coders, strict=True)}
    table = Table(path, 2 if headed else 1, images, coded)
    for name, part in coded.items():
        for value in part.values:
            if "\0" in value:
                raise SettingsError(f"{table.first_place(name, value)} has a null character: {value!r}")
    return table


def first_rows(path: Path, layout: TableFormat) -> dict[str, Sequence[str]]:
    """Read the first rows of a table, at least one: the cells of each column by its name.

    Raises:
        MissingFileError: The file is missing.
        SettingsError: The file cannot be read, or is empty.
    """
    names, chunks = _open(path, layout)
    columns = next(chunks(names), None)
    if columns is None:
        raise SettingsError(f"{path}: {_NO_ROWS}")
    return dict(zip(names, columns, strict=True))


_NO_ROWS = "the table is empty, it has no rows below its header"


def _open(path: Path, layout: TableFormat) -> tuple[list[str], Chunks]:
    if not path.is_file():
        what = ", which is a folder; give a file (images in class folders: ImageFolder)" if path.is_dir() else ""
        raise MissingFileError(f"no table {path.resolve()}{what}")
    return _parquet(path) if path.suffix.lower() == ".parquet" else _text(path, layout)


def _some(names: Sequence[str]) -> str:
    """List names for a message."""
    return f"{names[:20]}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")


class _Coder:
    """Numbers the values of a column in the order of their first rows."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.parts: list[NDArray[np.int64]] = []

    def add(self, cells: Sequence[str]) -> None:
        for value in dict.fromkeys(cells):
            self.known.setdefault(value, len(self.known))
        self.parts.append(np.fromiter(map(self.known.__getitem__, cells), np.int64, len(cells)))

    def finish(self) -> Coded:
        return Coded(list(self.known), np.concatenate(self.parts))


# Text


def _text(path: Path, layout: TableFormat) -> tuple[list[str], Chunks]:
    delimiter = layout.delimiter or DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        raise SettingsError(
            f"{path}: a table's name ends in .csv, .tsv, .txt (spaces) or .parquet; of another one, give the delimiter"
        )
    check_utf_16(path, layout.encoding)
    rows = _rows(path, delimiter, layout.encoding)
    first = next(rows, [])
    if not first:
        raise SettingsError(f"{path}: the table is empty")
    if len(first) > MOST_COLUMNS:
        raise SettingsError(
            f"{path}: row 1 has {len(first):,} cells, and at most {MOST_COLUMNS:,} are read: is the delimiter "
            f"{delimiter!r}?"
        )
    names, first_row = [name.strip() for name in first], 2
    if layout.columns is not None:
        if len(first) > len(layout.columns):
            raise SettingsError(f"{path}: row 1 has {len(first)} cells, and `columns` names {list(layout.columns)}")
        names, first_row = list(layout.columns[: len(first)]), 1
        rows = chain([first], rows)

    def chunks(wanted: Sequence[str]) -> Iterator[Columns]:
        places, row = [names.index(name) for name in wanted], first_row
        while chunk := list(islice(rows, CHUNK)):
            if set(map(len, chunk)) != {len(names)}:
                chunk = _even(path, chunk, rows, row, names)
            row += len(chunk)
            columns = list(zip(*chunk, strict=True))
            if columns:
                yield [columns[place] for place in places]

    return names, chunks


def _rows(path: Path, delimiter: str, encoding: str) -> Iterator[list[str]]:
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield from reader
        except csv.Error as error:
            raise SettingsError(f"{path}: line {reader.line_num} is no row of a table: {error}") from error
        except UnicodeError as error:
            raise wrong_encoding(path, delimiter, encoding) from error


def _even(
    path: Path, chunk: list[list[str]], rows: Iterator[list[str]], first_row: int, names: Sequence[str]
) -> list[list[str]]:
    """Remove blank lines at the end of the file from its last chunk; any other uneven row is an error."""
    index = next(index for index, row in enumerate(chunk) if len(row) != len(names))
    if not any(chain(chunk[index:], rows)):
        return chunk[:index]
    raise SettingsError(
        f"{path}: row {first_row + index} has {len(chunk[index])} cells, and there are {len(names)} columns "
        f"{_some(names)}"
    )


# Parquet


def _parquet(path: Path) -> tuple[list[str], Chunks]:
    pyarrow, parquet = pyarrow_for(path)
    try:
        file = parquet.ParquetFile(path)
        check_parquet(path, file)
    except (pyarrow.ArrowException, OSError) as error:
        raise SettingsError(f"{path} is no Parquet file: {error}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error

    def cells(batch: Any, name: str) -> list[str]:
        try:
            return list(batch[name].cast(pyarrow.string()).fill_null("").to_pylist())
        except pyarrow.ArrowException as error:
            raise SettingsError(f"{path}: column {name!r} is {batch[name].type}, neither text nor numbers") from error

    def chunks(wanted: Sequence[str]) -> Iterator[Columns]:
        try:
            for batch in file.iter_batches(PARQUET_CHUNK, columns=list(wanted)):
                yield [cells(batch, name) for name in wanted]
        except (pyarrow.ArrowException, OSError) as error:
            raise SettingsError(f"{path} is damaged: {error}") from error

    return list(file.schema_arrow.names), chunks
