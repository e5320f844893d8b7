"""Columns of a pseudo-label file, written chunk by chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.labels import Array


@dataclass(frozen=True)
class Column:
    """An array that may be too large for the memory.

    Attributes:
        dtype: The type of the elements.
        shape: The shape; its first entry is the number of rows.
        chunks: A function that begins to read the rows in chunks, cut at the same rows in all columns of a file.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[Array]]


def in_memory(array: Array, size: int | None = None) -> Column:
    """Make a column of an array in memory, in chunks of `size` rows; None: in one chunk."""
    if size is None:
        return Column(array.dtype, array.shape, lambda: iter([array]))
    starts = range(0, len(array), size)
    return Column(array.dtype, array.shape, lambda: (array[start : start + size] for start in starts))


def key_column(images: ImageRows, size: int) -> Column:
    """Make a column of the keys of a set of images, in chunks of `size` rows."""
    keys, rows = images.images.keys, images.rows.numpy()
    longest = 0 if keys is None else max((len(keys[row]) for row in rows), default=1)
    dtype = np.dtype(np.int64) if keys is None else np.dtype(f"<U{longest}")

    def chunks() -> Iterator[Array]:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part if keys is None else np.array([keys[row] for row in part], dtype)

    return Column(dtype, (len(rows),), chunks)


def identity_columns(images: ImageRows, size: int) -> dict[str, Column]:
    """Make the columns that say which images the rows are of, in chunks of `size` rows.

    These are `key`, and, if the images are from files, their `size` and, where it is known, `digest`.
    """
    pool, rows = images.images, images.rows
    columns = {"key": key_column(images, size)}
    if pool.has_files and pool.file_sizes is not None:
        columns["size"] = in_memory(pool.file_sizes[rows].numpy(), size)
        if pool.digests is not None:
            columns["digest"] = in_memory(pool.digests[rows].numpy(), size)
    return columns
