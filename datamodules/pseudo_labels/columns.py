"""Arrays that are written to a file chunk by chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.labels import Array


@dataclass(frozen=True)
class Column:
    """An array that is too large for the memory.

    Attributes:
        dtype: Of its elements.
        shape: The first entry is the number of rows.
        chunks: Begins to read it: successive rows, cut at the same places in all columns of a file.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[Array]]


def in_memory(array: Array) -> Column:
    """An array that is not too large."""
    return Column(array.dtype, array.shape, lambda: iter([array]))


def key_column(images: ImageRows, size: int) -> Column:
    """Keys of a set of images, in chunks of `size`."""
    keys, rows = images.images.keys, images.rows.numpy()
    longest = 0 if keys is None else max((len(keys[row]) for row in rows), default=1)
    dtype = np.dtype(np.int64) if keys is None else np.dtype(f"<U{longest}")

    def chunks() -> Iterator[Array]:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part if keys is None else np.array([keys[row] for row in part], dtype)

    return Column(dtype, (len(rows),), chunks)
