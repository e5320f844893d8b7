"""Arrays that are written to a file chunk by chunk, and files that appear when they are whole."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.images import ImageRows
from datamodules.pseudo_labels import Array


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


# Files


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file.

    Raises:
        ValueError: It exists and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path} exists: remove it, name another output, or set overwrite to true (of `tailmatch predict`: "
            "--output FILE, --overwrite true)"
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; what lies there is moved to `path` at the end, and removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def pyarrow_for(path: Path) -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        ValueError: They are not installed, so that `path` cannot be read or written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path} needs pyarrow: pip install 'tailmatch[parquet]', or name a file of another format"
        ) from error
    return pyarrow, parquet
