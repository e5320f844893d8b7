"""Tables of predictions: their columns, and how they are written as text or Parquet."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TextIO, TypeAlias

import numpy as np

from tailmatch.datamodules.output_files import pyarrow_for
from tailmatch.datamodules.pseudo_labels.labels import Array

Field: TypeAlias = Literal["key", "id", "label", "class_index", "confidence", "runners_up", "probs"]

Chunk: TypeAlias = Mapping[str, Array]
"""Some rows: `key str or int64 [n]`; `label int64 [n, T]` and `confidence float32 [n, T]` of the T most likely classes,
the most likely first; and `probs float32 [n, K]` if a table shows them."""

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}

PARQUET = ".parquet"

DIGITS = 6
"""Significant digits of a number in text; float32 represents every number to this many digits."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        name: Header of the column.
        values: Function from a chunk to the column's cells `[n]`: text, `int64` or `float32`.
    """

    name: str
    values: Callable[[Chunk], Array]


def key(names: Sequence[str], top: int) -> list[TableColumn]:
    """Identify the image: its path, or its position in the data set if there are no files."""
    return [TableColumn("key", lambda chunk: chunk["key"])]


def stem(names: Sequence[str], top: int) -> list[TableColumn]:
    """Name the file, without folder and suffix."""

    def values(chunk: Chunk) -> Array:
        keys = chunk["key"]
        return keys if keys.dtype.kind == "i" else np.array([PurePosixPath(path).stem for path in keys], object)

    return [TableColumn("id", values)]


def label(names: Sequence[str], top: int) -> list[TableColumn]:
    """Name the most likely class."""
    return [_label("label", names, 0)]


def class_index(names: Sequence[str], top: int) -> list[TableColumn]:
    """Give the index of the most likely class, from 0."""
    return [TableColumn("class_index", lambda chunk: chunk["label"][:, 0])]


def confidence(names: Sequence[str], top: int) -> list[TableColumn]:
    """Give the probability of the most likely class."""
    return [_confidence("confidence", 0)]


def runners_up(names: Sequence[str], top: int) -> list[TableColumn]:
    """Give name and probability of the next most likely classes, up to the `top`-th."""
    places = range(1, top)
    return [
        column
        for place in places
        for column in (_label(f"label_{place + 1}", names, place), _confidence(f"confidence_{place + 1}", place))
    ]


def probs(names: Sequence[str], top: int) -> list[TableColumn]:
    """Give the probability of every class, in the order of the classes."""
    return [_probability(f"probs_{name}", k) for k, name in enumerate(names)]


FIELDS: dict[Field, Callable[[Sequence[str], int], list[TableColumn]]] = {
    "key": key,
    "id": stem,
    "label": label,
    "class_index": class_index,
    "confidence": confidence,
    "runners_up": runners_up,
    "probs": probs,
}
"""Functions that return the columns of each field, given the class names and the number of classes to rank."""


def _label(header: str, names: Sequence[str], place: int) -> TableColumn:
    named = np.array(names, object)
    return TableColumn(header, lambda chunk: named[chunk["label"][:, place]])


def _confidence(header: str, place: int) -> TableColumn:
    return TableColumn(header, lambda chunk: chunk["confidence"][:, place])


def _probability(header: str, k: int) -> TableColumn:
    return TableColumn(header, lambda chunk: chunk["probs"][:, k])


# Writing


def write_table(path: Path, suffix: str, columns: Sequence[TableColumn], chunks: Iterable[Chunk], header: bool) -> None:
    """Write a table chunk by chunk.

    Args:
        path: Path of the file.
        suffix: Format: `.csv`, `.tsv` or `.txt` (tabs), or `.parquet`. Text is UTF-8, quoted where necessary.
        columns: Columns in their order.
        chunks: Rows of the table.
        header: Whether the first row of a text file contains the column names.
    """
    if suffix == PARQUET:
        _write_parquet(path, columns, chunks)
    else:
        _write_text(path, DELIMITERS[suffix], columns, chunks, header)


def _write_text(
    path: Path, delimiter: str, columns: Sequence[TableColumn], chunks: Iterable[Chunk], header: bool
) -> None:
    # File names need not be UTF-8: surrogateescape restores the bytes of the file system.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(_Lines(file), delimiter=delimiter)
        if header:
            writer.writerow([column.name for column in columns])
        for chunk in chunks:
            writer.writerows(zip(*(_cells(column.values(chunk)) for column in columns), strict=True))


class _Lines:
    """A file whose rows end with a line feed; the writer itself would then not quote a carriage return in a name."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


def _cells(values: Array) -> list[str]:
    cells = values.tolist()
    return [f"{value:.{DIGITS}g}" for value in cells] if values.dtype.kind == "f" else cells


def _write_parquet(path: Path, columns: Sequence[TableColumn], chunks: Iterable[Chunk]) -> None:
    pyarrow, parquet = pyarrow_for(path)
    names, writer = [column.name for column in columns], None
    try:
        for chunk in chunks:
            arrays = [pyarrow.array(column.values(chunk)) for column in columns]
            batch = pyarrow.record_batch(arrays, names=names)
            writer = writer or parquet.ParquetWriter(path, batch.schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
