"""Tables of predictions: which columns they have, and how they are written as text or as Parquet."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np

from tailmatch.datamodules.output_files import pyarrow_for
from tailmatch.datamodules.pseudo_labels.labels import Array

Field: TypeAlias = Literal["key", "id", "label", "class_index", "confidence", "runners_up", "probs"]

Chunk: TypeAlias = Mapping[str, Array]
"""Some rows: `key str or int64 [n]`, `label int64 [n, T]` and `confidence float32 [n, T]` of the T most likely classes,
the most likely first, and, where a table shows them, `probs float32 [n, K]`."""

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}

PARQUET = ".parquet"

DIGITS = 6
"""Significant digits of a number in text: those that float32 holds for every number."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        name: Its header.
        values: Its cells `[n]` of a chunk: text, `int64` or `float32`.
    """

    name: str
    values: Callable[[Chunk], Array]


def key(names: Sequence[str], top: int) -> list[TableColumn]:
    """What names the image: its path, or its place in the data set where there are no files."""
    return [TableColumn("key", lambda chunk: chunk["key"])]


def stem(names: Sequence[str], top: int) -> list[TableColumn]:
    """The name of the file, without folder and suffix."""

    def values(chunk: Chunk) -> Array:
        keys = chunk["key"]
        return keys if keys.dtype.kind == "i" else np.array([PurePosixPath(path).stem for path in keys], object)

    return [TableColumn("id", values)]


def label(names: Sequence[str], top: int) -> list[TableColumn]:
    """Name of the most likely class."""
    return [_label("label", names, 0)]


def class_index(names: Sequence[str], top: int) -> list[TableColumn]:
    """Its place among the classes, from 0."""
    return [TableColumn("class_index", lambda chunk: chunk["label"][:, 0])]


def confidence(names: Sequence[str], top: int) -> list[TableColumn]:
    """Its probability."""
    return [_confidence("confidence", 0)]


def runners_up(names: Sequence[str], top: int) -> list[TableColumn]:
    """Name and probability of the classes that come next, to the `top`-th."""
    places = range(1, top)
    return [
        column
        for place in places
        for column in (_label(f"label_{place + 1}", names, place), _confidence(f"confidence_{place + 1}", place))
    ]


def probs(names: Sequence[str], top: int) -> list[TableColumn]:
    """The probability of every class, in their order."""
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
"""The columns of each field, given the names of the classes and how many classes are ranked."""


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
        path: The file.
        suffix: `.csv`, `.tsv` and `.txt` (tabs) or `.parquet`. Text is UTF-8, quoted where it must be.
        columns: In their order.
        chunks: The rows.
        header: Whether the first row of a text has the columns' names.
    """
    if suffix == PARQUET:
        _write_parquet(path, columns, chunks)
    else:
        _write_text(path, DELIMITERS[suffix], columns, chunks, header)


def _write_text(
    path: Path, delimiter: str, columns: Sequence[TableColumn], chunks: Iterable[Chunk], header: bool
) -> None:
    # Names of files need not be UTF-8: surrogateescape gives back the bytes that the file system has.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        if header:
            writer.writerow([column.name for column in columns])
        for chunk in chunks:
            writer.writerows(zip(*(_cells(column.values(chunk)) for column in columns), strict=True))


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
